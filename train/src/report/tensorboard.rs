//! TensorBoard event files: the only file that knows TensorBoard's formats.
//!
//! Of `tensorboard-rs` this takes the record framing and the scalar summary. Its `SummaryWriter`
//! is left alone: it writes on a thread of its own and panics there and in `drop` when the disk is
//! full, it names files by the second, so that two runs of one process overwrite each other, and it
//! has neither text nor the session mark that a resumed run needs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::{Message, RepeatedField};
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{
    Summary, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData,
};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary::scalar;

use super::{ExamReport, ExpertsReport, SampleReport, StepReport, ValidationReport};

/// Characters of a prompt that name its series.
const MAX_TAG_CHARS: usize = 60;

/// An event file that is being written.
pub(super) struct EventFile {
    file: File,
    records: RecordWriter<File>,
}

impl EventFile {
    /// Starts a file in `dir`, which must exist, and retires every earlier event from `first_step` on.
    pub(super) fn create(dir: &Path, first_step: u64) -> io::Result<Self> {
        // TensorBoard reads the files of a run in the order of their names. The count keeps a run
        // resumed within the same second behind the run it resumes.
        let num_files = fs::read_dir(dir)?.count();
        let name = format!(
            "events.out.tfevents.{:010}.{num_files:04}",
            unix_secs() as u64
        );
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(dir.join(name))?;
        let mut events = Self {
            records: RecordWriter::new(file.try_clone()?),
            file,
        };

        let mut version = Event::new();
        version.set_file_version("brain.Event:2".to_string());
        events.write(version)?;

        // A session start makes TensorBoard forget what earlier files say about these steps.
        let mut session = SessionLog::new();
        session.set_status(SessionLog_SessionStatus::START);
        let mut start = Event::new();
        start.set_session_log(session);
        start.set_step(first_step as i64);
        events.write(start)?;
        Ok(events)
    }

    pub(super) fn write_step(&mut self, report: &StepReport) -> io::Result<()> {
        let mut summary = summary_of(&[
            ("train/loss", report.loss),
            ("train/lr", report.lr),
            ("train/grad_norm", report.grad_norm),
            ("train/tokens_per_sec", report.tokens as f64 / report.secs),
            ("train/data_wait", report.data_wait_secs / report.secs),
        ]);
        add_metrics(&mut summary, "train", &report.metrics);
        self.write_summary(report.step, summary)
    }

    pub(super) fn write_experts(&mut self, report: &ExpertsReport) -> io::Result<()> {
        let [entropy, balance, violation, worst] = report.summary();
        let mut summary = summary_of(&[
            ("experts/entropy", entropy),
            ("experts/balance", balance),
            ("experts/max_violation", violation),
            ("experts/worst_max_violation", worst),
            ("experts/dropped", report.dropped as f64),
        ]);
        for layer in &report.layers {
            let total = layer.loads.iter().sum::<u64>().max(1) as f64;
            for (expert, load) in layer.loads.iter().enumerate() {
                let tag = format!("expert_load/layer_{}/expert_{expert}", layer.layer);
                let share = summary_of(&[(&tag, *load as f64 / total)]).take_value();
                summary.mut_value().extend(share);
            }
        }
        self.write_summary(report.step, summary)
    }

    pub(super) fn write_validation(&mut self, report: &ValidationReport) -> io::Result<()> {
        let mut summary = summary_of(&[("validation/loss", report.loss)]);
        let bits = report.bits_per_byte.map(|bits| ("bits_per_byte", bits));
        add_metrics(&mut summary, "validation", bits.as_slice());
        add_metrics(&mut summary, "validation", &report.metrics);
        self.write_summary(report.step, summary)
    }

    /// Writes the sample as text, one series per prompt.
    pub(super) fn write_sample(&mut self, report: &SampleReport) -> io::Result<()> {
        let name: String = report
            .prompt
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_TAG_CHARS)
            .collect();
        let name = if name.is_empty() { "no prompt" } else { &name };
        // TensorBoard shows text as Markdown; indented by four it stays as it is.
        let text = format!("{}{}", report.prompt, report.text);
        let lines: Vec<String> = text.lines().map(|line| format!("    {line}\n")).collect();
        let summary = text_summary(&format!("samples/{name}"), &lines.concat());
        self.write_summary(report.step, summary)
    }

    pub(super) fn write_exam(&mut self, report: &ExamReport) -> io::Result<()> {
        let score = &report.score;
        let tag = format!("exam/{}", score.exam);
        self.write_summary(report.step, summary_of(&[(&tag, score.accuracy)]))
    }

    /// Waits until the events are on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_summary(&mut self, step: u64, summary: Summary) -> io::Result<()> {
        let mut event = Event::new();
        event.set_step(step as i64);
        event.set_summary(summary);
        self.write(event)
    }

    fn write(&mut self, mut event: Event) -> io::Result<()> {
        event.set_wall_time(unix_secs());
        let bytes = event.write_to_bytes().map_err(io::Error::other)?;
        self.records.write(&bytes)
    }
}

/// Adds a stage's own numbers under a group's name.
fn add_metrics(summary: &mut Summary, group: &str, metrics: &[(&str, f64)]) {
    for (name, value) in metrics {
        let tag = format!("{group}/{name}");
        let scalar = summary_of(&[(&tag, *value)]).take_value();
        summary.mut_value().extend(scalar);
    }
}

fn summary_of(scalars: &[(&str, f64)]) -> Summary {
    let mut all = Summary::new();
    for (tag, value) in scalars {
        all.mut_value()
            .extend(scalar(tag, *value as f32).take_value());
    }
    all
}

fn text_summary(tag: &str, text: &str) -> Summary {
    let mut dim = TensorShapeProto_Dim::new();
    dim.set_size(1);
    let mut shape = TensorShapeProto::new();
    shape.set_dim(RepeatedField::from_vec(vec![dim]));
    let mut tensor = TensorProto::new();
    tensor.set_dtype(DataType::DT_STRING);
    tensor.set_tensor_shape(shape);
    tensor.set_string_val(RepeatedField::from_vec(vec![text.as_bytes().to_vec()]));

    let mut plugin = SummaryMetadata_PluginData::new();
    plugin.set_plugin_name("text".to_string());
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(plugin);

    let mut value = Summary_Value::new();
    value.set_tag(tag.to_string());
    value.set_metadata(metadata);
    value.set_tensor(tensor);
    let mut summary = Summary::new();
    summary.set_value(RepeatedField::from_vec(vec![value]));
    summary
}

/// Seconds since 1970, or zero where the clock is older.
fn unix_secs() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensorboard_rs::masked_crc32c::masked_crc32c;

    /// Reads records back by TensorFlow's framing: length, its checksum, bytes, their checksum.
    fn read_events(dir: &Path) -> Vec<Event> {
        let mut paths: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let mut events = Vec::new();
        for path in paths {
            let bytes = fs::read(path).unwrap();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (header, after) = rest.split_at(12);
                let len = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
                assert_eq!(header[8..], masked_crc32c(&header[..8]).to_le_bytes());
                let (data, after) = after.split_at(len);
                assert_eq!(after[..4], masked_crc32c(data).to_le_bytes());
                events.push(Event::parse_from_bytes(data).unwrap());
                rest = &after[4..];
            }
        }
        events
    }

    /// The session start carries the first step that the resumed run takes again.
    #[test]
    fn a_resumed_run_continues_in_a_second_file_that_purges() {
        let dir = tempfile::tempdir().unwrap();
        for first_step in [0, 5] {
            let mut events = EventFile::create(dir.path(), first_step).unwrap();
            events
                .write_validation(&ValidationReport {
                    step: 5,
                    loss: 2.5,
                    bits_per_byte: Some(1.25),
                    metrics: Vec::new(),
                })
                .unwrap();
        }
        let events = read_events(dir.path());
        let steps: Vec<_> = events
            .iter()
            .map(|event| (event.has_session_log(), event.get_step()))
            .collect();
        let file = |first_step| [(false, 0), (true, first_step), (false, 5)];
        assert_eq!(steps, [file(0), file(5)].concat());
        let values = events[2].get_summary().get_value();
        assert_eq!(values[0].get_tag(), "validation/loss");
        assert_eq!(values[1].get_simple_value().to_bits(), 1.25_f32.to_bits());
    }

    /// `/dev/full` accepts no byte, as a full disk does: an error, where `SummaryWriter` panics.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut events = EventFile {
            records: RecordWriter::new(file.try_clone().unwrap()),
            file,
        };
        let result = events.write_sample(&SampleReport {
            step: 1,
            prompt: String::new(),
            text: "hello".into(),
        });
        assert!(result.is_err());
    }
}
