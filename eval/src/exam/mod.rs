//! Exams of questions with four options: C-Eval, CMMLU and their like, with what the scores do and
//! do not say.

pub mod card;
pub mod ceval;
pub mod cmmlu;
pub mod files;
pub mod folder;
pub mod method;
pub mod prompt;
pub mod question;
pub mod read;
pub mod sit;
pub mod summary;
