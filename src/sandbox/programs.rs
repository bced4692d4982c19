//! Finds the host's programs that svp runs (newuidmap, pasta, busctl), and names the packages that contain them.

use std::path::PathBuf;

/// Returns the path of a program that the caller may execute, from PATH or Debian's program directories.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| {
            path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        })
}

/// A package of the host's distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Package {
    /// newuidmap and newgidmap.
    Uidmap,
    /// pasta.
    Passt,
}

/// Returns how to install a package on this host.
pub(super) fn install(package: Package) -> String {
    let release = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
    install_on(&release.unwrap_or_default(), package)
}

/// As [`install`], for the distribution that the text of os-release(5) names.
fn install_on(release: &str, package: Package) -> String {
    let value = |name: &str| {
        let mut lines = release.lines().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map_or("", |(_, value)| value.trim_matches(['"', '\'']))
    };
    let mut ids = value("ID").split(' ').chain(value("ID_LIKE").split(' '));
    let uidmap = package == Package::Uidmap;
    let command = ids.find_map(|id| {
        let (installer, ids, network) = match id {
            "debian" | "ubuntu" => ("apt-get install", "uidmap", "passt"),
            "fedora" | "rhel" | "centos" => ("dnf install", "shadow-utils", "passt"),
            "suse" | "opensuse" | "sles" => ("zypper install", "shadow", "passt"),
            "arch" => ("pacman -S", "shadow", "passt"),
            "alpine" => ("apk add", "shadow-subids", "passt"),
            _ => return None,
        };
        Some(format!("{installer} {}", if uidmap { ids } else { network }))
    });
    let other = match package {
        Package::Uidmap => {
            "install the package that contains newuidmap, such as uidmap or shadow-utils"
        }
        Package::Passt => "install the package passt, which contains pasta",
    };
    command.map_or_else(|| other.to_owned(), |command| as_root(&command))
}

/// Returns the sentence that tells the caller to run a command that needs root.
pub(super) fn as_root(command: &str) -> String {
    match rustix::process::geteuid().is_root() {
        true => format!("run `{command}`"),
        false => format!("as root, run `{command}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_the_distributions_names() {
        let cases = [
            ("ID=debian\n", "`apt-get install uidmap`"),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "`apt-get install uidmap`"),
            (
                "NAME=x\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                "`dnf install shadow-utils`",
            ),
            ("ID=alpine\n", "`apk add shadow-subids`"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "`zypper install shadow`"),
            ("", "such as uidmap or shadow-utils"),
        ];
        for (release, part) in cases {
            let text = install_on(release, Package::Uidmap);
            assert!(text.contains(part), "{release}: {text}");
            assert!(install_on(release, Package::Passt).contains("passt"));
        }
    }
}
