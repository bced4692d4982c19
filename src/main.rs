//! The svp program: a stage or a monitor of itself if it was started as one, else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    svp::sandbox::run_if_stage()
        .or_else(svp::service::monitor::run_if_monitor)
        .unwrap_or_else(svp::cli::main)
}
