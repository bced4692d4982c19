//! The svp program: runs as a stage or a monitor if svp started it as one, otherwise as the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    svp::sandbox::run_if_stage()
        .or_else(|| svp::service::monitor::run_if_monitor(svp::cli::line))
        .unwrap_or_else(svp::cli::main)
}
