//! The svp program: a stage of itself if it was started as one, else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    svp::sandbox::run_if_stage().unwrap_or_else(svp::cli::main)
}
