//! Output formats of an instance's environment.

use clap::ValueEnum;

/// Output format of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EnvFormat {
    /// One NAME=VALUE per line, unquoted
    Dotenv,
    /// One JSON object
    Json,
    /// export NAME='VALUE', for a shell to read
    Shell,
}

/// Formats an environment.
pub(in crate::cli) fn environment_text(
    environment: &[(String, String)],
    format: EnvFormat,
) -> String {
    match format {
        EnvFormat::Dotenv => environment.iter().map(|(n, v)| format!("{n}={v}\n")).collect(),
        EnvFormat::Shell => environment
            .iter()
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
            .collect(),
        EnvFormat::Json => {
            let pairs = environment.iter().map(|(n, v)| (n.clone(), v.clone().into()));
            let map: serde_json::Map<String, serde_json::Value> = pairs.collect();
            format!("{:#}\n", serde_json::Value::Object(map))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let env = vec![("B".to_owned(), "it's".to_owned()), ("A".to_owned(), "%IP".to_owned())];
        assert_eq!(environment_text(&env, EnvFormat::Dotenv), "B=it's\nA=%IP\n");
        let shell = "export B='it'\\''s'\nexport A='%IP'\n";
        assert_eq!(environment_text(&env, EnvFormat::Shell), shell);
        let json: serde_json::Value =
            serde_json::from_str(&environment_text(&env, EnvFormat::Json)).unwrap();
        assert_eq!(json["B"], "it's");
    }
}
