//! Tries, from inside a container, what a container must not be able to do, and prints a line for each attempt.
//!
//! ```text
//! svp-probes                 runs all probes: GROUP TAB NAME TAB open|closed|none TAB DETAIL
//! svp-probes --list          GROUP TAB NAME
//! svp-probes --host DIR      plays the host: creates what probes look for, writes DIR/env, and waits to be killed
//! ```
//!
//! `open` means that the attempt succeeded, or that the kernel refused only its arguments; `none` that this kernel or
//! machine has nothing to attack. Every probe runs in a process of its own, with arguments that change nothing where it
//! succeeds.

mod attempt;
mod calls;
mod capabilities;
mod devices;
mod files;
mod host;
mod i386;
mod namespaces;
mod network;

use attempt::Probe;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => all().iter().for_each(|probe| println!("{}\t{}", probe.group, probe.name)),
        ["--host", dir] => host::play(dir),
        [] => {
            // As root on the host, the probes would find every door open.
            if namespaces::is_host("mnt") != Some(false) {
                eprintln!("svp-probes: this is no container, or SVP_PROBES_NS_mnt is not set");
                std::process::exit(2);
            }
            for probe in all() {
                let (result, detail) = probe.run_apart();
                println!("{}\t{}\t{result}\t{detail}", probe.group, probe.name);
            }
        }
        _ => {
            eprintln!("usage: svp-probes [--list | --host DIR]");
            std::process::exit(2);
        }
    }
}

/// All probes. Those that would change the container if they succeeded are the last of their group.
fn all() -> Vec<Probe> {
    let mut all = Vec::new();
    all.extend(calls::probes());
    all.extend(i386::probes());
    all.extend(capabilities::probes());
    all.extend(namespaces::probes());
    all.extend(files::probes());
    all.extend(devices::probes());
    all.extend(network::probes());
    all.extend(host::probes());
    all
}
