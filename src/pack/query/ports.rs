//! Parses ports, from `query ports` or from the environment's `*_PORT`.

use std::fmt;

use super::lines::{Source, lines};
use super::values::{EnvVar, unique};
use crate::error::Result;
use crate::oci::Transport;

/// A port that the service listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The number, 1 to 65535.
    pub number: u16,
    /// tcp or udp.
    pub protocol: Transport,
}

impl fmt::Display for Port {
    /// Formats the port as in a config's ExposedPorts: `3306/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// Parses a number from 1 to 65535, without sign or leading zeros.
fn number(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn port(text: &str) -> Option<Port> {
    let (digits, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next()?, Transport::Tcp),
        Some((digits, "udp")) => (digits, Transport::Udp),
        Some(_) => return None,
    };
    Some(Port { number: number(digits)?, protocol })
}

/// Parses `query ports`: one `NUMBER[/tcp|/udp]` per line, without duplicates.
pub fn parse_ports(output: &[u8], script: &str) -> Result<Vec<Port>> {
    let lines = lines(Source { script, key: "ports" }, output)?;
    unique(&lines, |line| {
        port(line.text).ok_or_else(|| {
            line.bad("invalid port: write NUMBER, NUMBER/tcp or NUMBER/udp, 1 to 65535")
        })
    })
}

/// Returns the ports in the environment, for a pack that doesn't answer `ports`: the numeric values of
/// `PORT` and `*_PORT`, as tcp, without duplicates, in the environment's order.
pub fn ports_from_env(env: &[EnvVar]) -> Vec<Port> {
    let mut out: Vec<Port> = Vec::new();
    for var in env.iter().filter(|var| var.name == "PORT" || var.name.ends_with("_PORT")) {
        if let Some(number) = number(&var.value) {
            let port = Port { number, protocol: Transport::Tcp };
            if !out.contains(&port) {
                out.push(port);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> Result<String> {
        let ports = parse_ports(output.as_bytes(), "bin/query")?;
        Ok(ports.iter().map(Port::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn ports_are_numbers_with_a_protocol() {
        assert_eq!(shown("3306\n53/udp\n53/tcp\n").unwrap(), "3306/tcp 53/udp 53/tcp");
        assert_eq!(shown("").unwrap(), "");
        assert_eq!(shown("65535").unwrap(), "65535/tcp");
    }

    #[rstest::rstest]
    #[case("0", "invalid port")]
    #[case("65536", "invalid port")]
    #[case("080", "invalid port")]
    #[case("+80", "invalid port")]
    #[case("-1", "invalid port")]
    #[case("80 ", "invalid port")]
    #[case("80/", "invalid port")]
    #[case("80/sctp", "invalid port")]
    #[case("80/tcp/udp", "invalid port")]
    #[case("/tcp", "invalid port")]
    #[case("80-90", "invalid port")]
    #[case("127.0.0.1:80", "invalid port")]
    #[case("99999999999999999999", "invalid port")]
    #[case("80\n81\n80/tcp", "line 3: \"80/tcp\": duplicate")]
    fn invalid_ports_are_refused(#[case] output: &str, #[case] says: &str) {
        let error = shown(output).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(error.contains("bin/query ports"), "{error}");
    }

    #[test]
    fn ports_fall_back_to_the_environment() {
        let env = [
            ("MYSQL_PORT", "3306"),
            ("PORT", "80"),
            ("OTHER_PORT", "80"),
            ("PORTS", "1"),
            ("MYPORT", "2"),
            ("A_PORT", "%IP"),
            ("B_PORT", "0"),
            ("C_PORT", "70000"),
            ("D_PORT", "08"),
            ("E_PORT", ""),
        ];
        let env: Vec<EnvVar> = env
            .iter()
            .map(|(name, value)| EnvVar { name: (*name).into(), value: (*value).into() })
            .collect();
        let ports: Vec<u16> = ports_from_env(&env).iter().map(|port| port.number).collect();
        assert_eq!(ports, [3306, 80]);
    }
}
