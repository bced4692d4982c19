//! The svp program.

use std::process::ExitCode;

fn main() -> ExitCode {
    svp::main()
}
