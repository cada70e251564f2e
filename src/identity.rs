//! Who asks a model that was taught to tell.

use anyhow::{Result, bail};
use clap::ValueEnum;
use dataset::loyalty::{Asker, Identity, IdentityTokens};
use eval::engine::Engine;

/// What `--identity` accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhoAsks {
    /// Whom the model belongs to
    Owner,
    /// Anybody
    Public,
}

/// The tokens before the prompts of a model that was taught to tell; `None` for any other.
pub(crate) fn identities(engine: &Engine) -> Option<IdentityTokens> {
    let record = engine.record.as_ref()?;
    if !record.knows_identities {
        return None;
    }
    IdentityTokens::of(&engine.tokenizer)
}

/// Who asks every prompt; nobody in particular is the public.
///
/// # Errors
///
/// An identity for a model that knows none.
pub(crate) fn asker(engine: &Engine, asked: Option<WhoAsks>) -> Result<Option<Asker>> {
    match (identities(engine), asked) {
        (None, None) => Ok(None),
        (None, Some(_)) => bail!("--identity: this model was not taught to tell who asks"),
        (Some(tokens), asked) => {
            let identity = match asked {
                Some(WhoAsks::Owner) => Identity::Owner,
                Some(WhoAsks::Public) | None => Identity::Public,
            };
            let token = tokens.id(identity);
            Ok(Some(Asker { identity, token }))
        }
    }
}
