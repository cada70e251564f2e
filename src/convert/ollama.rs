//! A folder that `ollama create` takes: the model as GGUF beside a Modelfile.

use anyhow::{Context, Result, ensure};
use dataset::chat::{ChatTemplate, Message, RenderOptions};
use dataset::tokenizer::Tokenizer;
use model::ModelConfig;

/// Names of the two files.
pub(super) const MODELFILE: &str = "Modelfile";
pub(super) const GGUF_FILE: &str = "model.gguf";

/// Stands for what is said; no template writes it.
const CONTENT: &str = "\u{1}content\u{1}";

/// The text of a Modelfile.
///
/// # Errors
///
/// A chat template whose turns depend on each other, so that Ollama's cannot say the same.
pub(super) fn modelfile(tokenizer: &Tokenizer, config: &ModelConfig) -> Result<String> {
    let mut text = format!("FROM ./{GGUF_FILE}\n");
    text += &format!("PARAMETER num_ctx {}\n", config.max_position_embeddings);
    for id in &config.eos_token_id {
        if let Some(token) = tokenizer.id_to_token(*id) {
            text += &format!("PARAMETER stop \"{token}\"\n");
        }
    }
    let template = match tokenizer.chat_template() {
        Some(template) => go_template(template)?,
        None => "{{ .Prompt }}".to_owned(),
    };
    text += &format!("TEMPLATE \"\"\"{template}\"\"\"\n");
    Ok(text)
}

/// What the Jinja template says, as a Go template: one piece of text for the turns of each role.
fn go_template(template: &ChatTemplate) -> Result<String> {
    let depends = "the chat template renders turns otherwise than one after another, which a \
                   Modelfile cannot say";
    let render = |roles: &[&str], add_generation_prompt| -> Result<String> {
        let messages: Vec<Message> = roles
            .iter()
            .map(|role| Message::new(*role, CONTENT))
            .collect();
        let options = RenderOptions {
            add_generation_prompt,
            ..RenderOptions::default()
        };
        Ok(template.render(&messages, &options)?)
    };
    let user = render(&["user"], false)?;
    let opening = render(&["user"], true)?;
    let opening = opening.strip_prefix(&user).context(depends)?;
    let with_answer = render(&["user", "assistant"], false)?;
    let assistant = with_answer.strip_prefix(&user).context(depends)?;
    let with_system = render(&["system", "user"], false)?;
    let system = with_system.strip_suffix(&user).context(depends)?;
    let again = render(&["system", "user", "assistant", "user"], true)?;
    ensure!(
        again == format!("{system}{user}{assistant}{user}{opening}"),
        depends
    );
    let piece = |text: &str| -> Result<String> {
        ensure!(
            text.matches(CONTENT).count() == 1 && !text.contains("{{") && !text.contains("\"\"\""),
            depends
        );
        Ok(text.replace(CONTENT, "{{ .Content }}"))
    };
    Ok(format!(
        "{{{{- range .Messages }}}}{{{{ if eq .Role \"system\" }}}}{}{{{{ else if eq .Role \"user\" \
         }}}}{}{{{{ else if eq .Role \"assistant\" }}}}{}{{{{ end }}}}{{{{ end }}}}{opening}",
        piece(system)?,
        piece(&user)?,
        piece(assistant)?,
    ))
}

#[cfg(test)]
mod tests {
    use dataset::chat::V1_TEMPLATE;

    use super::*;

    /// By hand from the template of MiniMind v1.
    #[test]
    fn a_template_of_turns_becomes_a_go_template() {
        let template: ChatTemplate = V1_TEMPLATE.parse().unwrap();
        assert_eq!(
            go_template(&template).unwrap(),
            "{{- range .Messages }}{{ if eq .Role \"system\" }}{{ .Content }}{{ else if eq .Role \
             \"user\" }}<s>user\n{{ .Content }}</s>\n<s>assistant\n{{ else if eq .Role \
             \"assistant\" }}{{ .Content }}</s>\n{{ end }}{{ end }}"
        );
    }

    /// A template that says something of the last turn only.
    #[test]
    fn a_template_whose_turns_depend_on_each_other_is_refused() {
        let source =
            "{% for message in messages %}{{ loop.revindex }}{{ message.content }}{% endfor %}";
        let template: ChatTemplate = source.parse().unwrap();
        let message = go_template(&template).unwrap_err().to_string();
        assert_eq!(
            message,
            "the chat template renders turns otherwise than one after another, which a Modelfile \
             cannot say"
        );
    }
}
