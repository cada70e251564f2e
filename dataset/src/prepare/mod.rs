//! APT's training sets: what others published, made into one kind of file per stage; and files
//! merged, parted and counted.

mod coig_cqia;
mod convert;
mod files;
mod hub;
mod loyalty;
mod mixture;
mod origin;
mod parting;
mod preferences;
mod reasons;
mod record;
mod s1k;
mod sample;
mod source;
mod stats;
mod writer;

pub use convert::{PrepareError, PrepareOptions, Prepared, PreparedFile, prepare};
pub use files::FilesError;
pub use hub::{Hub, HubError, HubOptions};
pub use loyalty::{LoyaltyRecord, loyalty_template};
pub use mixture::{Amounts, MergeOptions, Merged, merge};
pub use origin::{Origin, OriginError};
pub use parting::{Parted, part, parted_paths};
pub use reasons::Reasons;
pub use record::{DpoRecord, DropReason, Record, SftRecord, StormRecord};
pub use source::{SOURCES, Source, Stage};
pub use stats::{FieldStats, FileStats};
pub use writer::{RowsWriter, WriteError, Written};
