//! The matrix of chaos: which faults hit whom at which moment of a volume's life, and what came of it. Data and arithmetic only; what
//! carries a case out is `tests/e2e/matrix`.

mod case;
mod report;
mod table;

pub use case::{Case, Fault, Moment, Victim};
pub use report::{MISSED, Report, Row};
pub use table::{Batch, batches, cases, choose, left_out};
