//! What a written text answers: a letter of a choice, or something short such as a number.

mod letter;
mod short;

pub use letter::{LETTERS, extract_letter};
pub(crate) use short::last_boxed;
pub use short::{expected_answer, extract_answer, is_same_answer};
