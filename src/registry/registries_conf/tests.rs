//! Table tests of registries.conf.

use super::*;

fn conf(text: &str) -> Conf {
    let mut conf = Conf::default();
    conf.add(file::parse("/x.conf".as_ref(), text).unwrap());
    conf
}

/// Returns the locations of `name`: `!` marks insecure ones, `-` blocked ones.
fn places(conf: &Conf, name: &str) -> String {
    let reference = name.parse::<Reference>().unwrap().with_default_registry();
    let places = conf.pull_from(&reference).into_iter().map(|place| match place {
        Ok(Endpoint { reference, insecure }) => {
            format!("{reference}{}", if insecure { "!" } else { "" })
        }
        Err(error) => {
            assert!(error.to_string().contains("blocked by /x.conf"), "{error}");
            "-".to_owned()
        }
    });
    places.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_longest_prefix_decides() {
    let conf = conf(
        r#"
        unqualified-search-registries = ["example.com"]
        unknown = 1
        [aliases]
        "debian" = "docker.io/library/debian"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example.net/bar"
        [[registry]]
        location = "example.com"
        insecure = true
        [[registry]]
        prefix = "example.com/foo/secret"
        location = "nowhere.example"
        blocked = true
        [[registry]]
        prefix = "example.com/foo/app:1"
        location = "one.example/app:2"
        [[registry]]
        prefix = "*.example.org"
        insecure = true
        [[registry]]
        prefix = "*.b.example.org"
        location = "b.internal.example/x/"
        [[registry]]
        location = "docker.io/library"
        blocked = true
        [[registry]]
        prefix = "docker.io"
        location = "hub.example:5000/dockerhub"
        "#,
    );
    let cases = [
        ("example.com/foo/a:1", "internal.example.net/bar/a:1"),
        ("example.com/foo:1", "internal.example.net/bar:1"),
        ("example.com/food", "example.com/food!"),
        ("example.com/x/y", "example.com/x/y!"),
        ("example.com:5000/x", "example.com:5000/x"),
        ("example.com/foo/secret/x", "-"),
        ("example.com/foo/secret:2", "-"),
        ("example.com/foo/secrets", "internal.example.net/bar/secrets"),
        ("example.com/foo/app:1", "one.example/app:2"),
        ("example.com/foo/app:11", "internal.example.net/bar/app:11"),
        ("example.org/x", "example.org/x"),
        ("a.example.org/x:1", "a.example.org/x:1!"),
        ("a.example.org:5000/x", "a.example.org:5000/x!"),
        ("xexample.org/x", "xexample.org/x"),
        ("a.b.example.org:5000/x/y:1", "b.internal.example/x/x/y:1"),
        ("other.example/a.example.org/x", "other.example/a.example.org/x"),
        ("debian:12", "-"),
        ("docker.io/team/x", "hub.example:5000/dockerhub/team/x"),
        ("x", "-"),
    ];
    for (name, expected) in cases {
        assert_eq!(places(&conf, name), expected, "{name}");
    }
    assert!(conf.insecure("example.com").unwrap());
    assert!(!conf.insecure("example.com:443").unwrap());
    assert!(conf.insecure("docker.io/library/x").is_err());
}

#[test]
fn mirrors_come_first_if_they_serve_the_kind_of_reference() {
    let text = |registry: &str, mirror: &str| {
        format!(
            "[[registry]]\nlocation = \"r.example\"\n{registry}\n[[registry.mirror]]\nlocation = \"m0.example/r\"\n\
             insecure = true\n{mirror}\n[[registry.mirror]]\nlocation = \"m1.example:1\"\n"
        )
    };
    let tagged = "r.example/a:1";
    let digested = format!("r.example/a@sha256:{}", "a".repeat(64));
    let both = "m0.example/r/a!# m1.example:1/a# r.example/a#";
    let second = "m1.example:1/a# r.example/a#";
    let cases = [
        ("", "", both, both),
        ("", "pull-from-mirror = \"all\"", both, both),
        ("", "pull-from-mirror = \"digest-only\"", second, both),
        ("", "pull-from-mirror = \"tag-only\"", both, second),
        ("mirror-by-digest-only = true", "", "r.example/a#", both),
        // Only the mirrors may be contacted.
        (
            "blocked = true",
            "",
            "m0.example/r/a!# m1.example:1/a# -",
            "m0.example/r/a!# m1.example:1/a# -",
        ),
        (
            "insecure = true",
            "pull-from-mirror = \"tag-only\"",
            "m0.example/r/a!# m1.example:1/a# r.example/a!#",
            "m1.example:1/a# r.example/a!#",
        ),
    ];
    for (registry, mirror, by_tag, by_digest) in cases {
        let conf = conf(&text(registry, mirror));
        let expected = |places: &str, end: &str| {
            let name = |place: &str| match place.strip_suffix("!#") {
                Some(place) => format!("{place}{end}!"),
                None => place.replace('#', end),
            };
            places.split(' ').map(name).collect::<Vec<_>>().join(" ")
        };
        let case = format!("{registry} {mirror}");
        assert_eq!(places(&conf, tagged), expected(by_tag, ":1"), "{case}");
        let end = &digested["r.example/a".len()..];
        assert_eq!(places(&conf, &digested), expected(by_digest, end), "{case}");
    }
    let own = conf(&format!(
        "{}\n[[registry]]\nlocation = \"m0.example/r\"\nblocked = true\n",
        text("", "")
    ));
    assert_eq!(places(&own, tagged), "- m1.example:1/a:1 r.example/a:1");
}

#[test]
fn errors_name_the_line() {
    let cases = [
        ("\n[[registry]]\nlocation = 1\n", 3, "string"),
        ("\n\nx = [\n", 3, ""),
        ("\n[[registry]]\ninsecure = true\n", 2, "a prefix or a location"),
        ("[[registry]]\nprefix = \"a.example\"\n", 1, "has no location"),
        ("\n[[registry]]\nprefix = \"*.a.example/x\"\n", 2, "*.example.com"),
        ("[[registry]]\nlocation = \"https://a.example\"\n", 1, "is a URL"),
        ("[[registry]]\nlocation = \"nodot\"\n", 1, "HOST[:PORT]"),
        ("[[registry]]\nlocation = \"a.example\"\npull-from-mirror = \"all\"", 1, "mirror"),
        ("[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\n", 1, "no location"),
        (
            "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"b.example\"\n\
             pull-from-mirror = \"never\"\n",
            1,
            "never",
        ),
        (
            "[[registry]]\nlocation = \"a.example\"\nmirror-by-digest-only = true\n[[registry.mirror]]\n\
             location = \"b.example\"\npull-from-mirror = \"all\"\n",
            1,
            "one of them",
        ),
        ("\n[registries.search]\nregistries = [\"docker.io\"]\n", 2, "version 1"),
        ("[registries.block]\nregistries = [\"docker.io\"]\n", 1, "version 1"),
    ];
    for (text, line, said) in cases {
        let error = file::parse("/etc/x.conf".as_ref(), text).unwrap_err();
        let expected = format!("/etc/x.conf, line {line}: ");
        assert!(error.to_string().starts_with(&expected), "{text}: {error}");
        assert!(error.to_string().contains(said), "{text}: {error}");
        assert_eq!(error.kind().exit_code(), 65);
    }
    let empty = "[registries.search]\nregistries = []\n";
    assert!(file::parse("/x".as_ref(), empty).unwrap().registries.is_empty());
}

#[test]
fn files_and_drop_ins_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let entry = |location: &str| {
        format!("[[registry]]\nprefix = \"r.example\"\nlocation = \"{location}.example\"\n")
    };
    let read = || {
        let places = Places {
            named: None,
            user: Some(dir.path().join("user")),
            system: Some(dir.path().join("system")),
        };
        places.read().map(|conf| places_of(&conf))
    };
    fn places_of(conf: &Conf) -> String {
        places(conf, "r.example/x")
    }
    assert_eq!(read().unwrap(), "r.example/x");
    write("system/registries.conf", &entry("main"));
    assert_eq!(read().unwrap(), "main.example/x");
    write("system/registries.conf.d/20-b.conf", &entry("b"));
    write("system/registries.conf.d/10-a.conf", &entry("a"));
    write("system/registries.conf.d/30-c.txt", &entry("c"));
    write("system/registries.conf.d/40.conf/x.conf", &entry("d"));
    write("system/registries.conf.d/50.conf", "[[registry]]\nlocation = \"other.example\"\n");
    assert_eq!(read().unwrap(), "b.example/x");
    write("user/registries.conf.d/00.conf", &entry("mine"));
    assert_eq!(read().unwrap(), "mine.example/x");
    // The user's file replaces the system's entirely.
    write("user/registries.conf", "");
    assert_eq!(read().unwrap(), "mine.example/x");
    write("user/registries.conf.d/00.conf", "");
    assert_eq!(read().unwrap(), "r.example/x");
    write("user/registries.conf.d/00.conf", "broken");
    assert!(read().unwrap_err().to_string().contains("00.conf, line 1"));

    let named = Places { named: Some(dir.path().join("none")), ..Places::default() };
    assert!(named.read().unwrap_err().to_string().contains("there is no file"));
}
