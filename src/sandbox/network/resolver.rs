//! Creates /etc/resolv.conf and /etc/hosts of a container.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};

use super::egress_filter::{HOST, gateways};
use crate::sandbox::spec::{HostAccess, HostsEntry};

/// The name server in a container if the host's is reachable only from the host; pasta forwards the queries.
const FORWARDED_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// A container's resolver: the content of /etc/resolv.conf, and the address that pasta must forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Resolver {
    pub(in crate::sandbox) file: String,
    pub(in crate::sandbox) forward: Option<IpAddr>,
}

impl Resolver {
    /// Returns the host's resolver, for a container in the host's network.
    pub(in crate::sandbox) fn of_host() -> Resolver {
        Resolver { file: read_bounded("/etc/resolv.conf"), forward: None }
    }

    /// Returns an empty resolver, for a container without a network.
    pub(in crate::sandbox) fn none() -> Resolver {
        Resolver { file: String::new(), forward: None }
    }

    /// Returns a resolver that works in a private network.
    pub(in crate::sandbox) fn private(host_access: HostAccess) -> Resolver {
        // Without the routes no container starts: see egress_filter.
        let blocked = match host_access.gateway {
            true => Vec::new(),
            false => gateways().unwrap_or_default(),
        };
        Resolver::private_from(&read_bounded("/etc/resolv.conf"), &blocked)
    }

    fn private_from(host: &str, blocked: &[IpAddr]) -> Resolver {
        let servers: Vec<IpAddr> = host.lines().filter_map(name_server).collect();
        let local = |ip: &IpAddr| {
            let special = match ip {
                IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
                IpAddr::V6(v6) => {
                    v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()
                }
            };
            special || blocked.contains(ip)
        };
        if !servers.is_empty() && servers.iter().any(|ip| !local(ip)) {
            let kept = host.lines().filter(|line| name_server(line).is_none_or(|ip| !local(&ip)));
            let file = kept.map(|line| format!("{line}\n")).collect();
            return Resolver { file, forward: None };
        }
        let others = host.lines().filter(|line| !line.trim_start().starts_with("nameserver"));
        let mut file: String = others.map(|line| format!("{line}\n")).collect();
        file.push_str(&format!("nameserver {FORWARDED_DNS}\n"));
        Resolver { file, forward: Some(IpAddr::V4(FORWARDED_DNS)) }
    }
}

fn name_server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    // An address with a zone (fe80::1%eth0) is link-local: useless in another network.
    let address = words.next()?;
    address.split('%').next()?.parse().ok()
}

/// Returns /etc/hosts of a container: the host's entries if `share_host`, the container's name, and, if the container
/// may reach the host, the names that podman and Docker give the host.
pub(in crate::sandbox) fn hosts(
    hostname: &str,
    share_host: bool,
    host_access: HostAccess,
) -> String {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if share_host {
        let host_file = read_bounded("/etc/hosts");
        let useful = host_file.lines().filter(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
            address.is_some_and(|ip| !ip.is_loopback())
        });
        useful.for_each(|line| text.push_str(&format!("{line}\n")));
    }
    if host_access.host {
        text.push_str(&format!("{HOST}\thost.containers.internal host.docker.internal\n"));
    }
    text.push_str(&format!("127.0.0.1\t{hostname}"));
    if let Some((host, _)) = hostname.split_once('.') {
        text.push_str(&format!(" {host}"));
    }
    text.push('\n');
    text
}

/// Adds entries to the text of an /etc/hosts. Their names are removed from the other lines, since a resolver returns all
/// addresses of a name.
pub(in crate::sandbox) fn add_hosts(text: &mut String, entries: &[HostsEntry]) {
    let taken = |name: &str| {
        entries.iter().flat_map(|entry| &entry.names).any(|taken| taken.eq_ignore_ascii_case(name))
    };
    let mut kept = String::new();
    for line in text.lines() {
        let words = line.split('#').next().unwrap_or_default();
        let mut words = words.split_whitespace();
        let address = words.next().unwrap_or_default();
        let names: Vec<&str> = words.collect();
        let others: Vec<&str> = names.iter().copied().filter(|name| !taken(name)).collect();
        if others.len() == names.len() {
            kept.push_str(&format!("{line}\n"));
        } else if !others.is_empty() {
            kept.push_str(&format!("{address}\t{}\n", others.join(" ")));
        }
    }
    for HostsEntry { address, names } in entries {
        kept.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }
    *text = kept;
}

/// Reads a file, up to 64 KiB; returns an empty text if the file can't be opened.
pub(in crate::sandbox) fn read_bounded(path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(path) {
        // Parse the part that could be read.
        let _ = file.take(65536).read_to_string(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_that_only_the_host_reaches_is_replaced() {
        let through =
            Resolver::private_from("search x\nnameserver 10.0.0.1\nnameserver 127.0.0.53\n", &[]);
        assert_eq!(through.file, "search x\nnameserver 10.0.0.1\n");
        assert_eq!(through.forward, None);
        for host in ["nameserver 127.0.0.53\noptions edns0\n", "nameserver fe80::1%eth0\n", ""] {
            let replaced = Resolver::private_from(host, &[]);
            assert!(replaced.file.ends_with("nameserver 169.254.1.1\n"), "{host:?}");
            assert!(replaced.forward.is_some());
        }
    }

    #[test]
    fn a_name_server_at_a_blocked_gateway_is_replaced() {
        let gateway = "10.0.2.1".parse().unwrap();
        let resolver = Resolver::private_from("nameserver 10.0.2.1\n", &[gateway]);
        assert_eq!(resolver.file, "nameserver 169.254.1.1\n");
        assert!(resolver.forward.is_some());
    }

    #[test]
    fn a_link_replaces_the_hosts_entries_of_its_name() {
        let mut text = "127.0.0.1\tlocalhost\n# db is old\n10.0.0.5 DB other # db\n10.0.0.6 db\n10.0.0.7 dbx\n".to_owned();
        let entry = |last, names: &[&str]| HostsEntry {
            address: Ipv4Addr::new(169, 254, 83, last).into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        add_hosts(&mut text, &[entry(2, &["db"]), entry(3, &["main", "db2"])]);
        let expected = "127.0.0.1\tlocalhost\n# db is old\n10.0.0.5\tother\n10.0.0.7 dbx\n\
            169.254.83.2\tdb\n169.254.83.3\tmain db2\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn hosts_names_the_container_and_if_allowed_the_host() {
        let text = hosts("svp", false, HostAccess::default());
        assert!(text.ends_with("127.0.0.1\tsvp\n") && !text.contains("internal"));
        let text = hosts("svp", false, HostAccess { host: true, ..HostAccess::default() });
        assert!(text.contains("169.254.1.2\thost.containers.internal host.docker.internal\n"));
    }
}
