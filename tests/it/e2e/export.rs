//! `svp export`: its output is read by its consumers: podman, systemd, Kubernetes' schemas, a YAML parser.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::machine::file_of_machine;
use crate::support::podman::Podman;
use crate::support::registry::free_port;
use crate::support::{TestEnv, output, pack, repo, run, success, transcript};

/// A pack of two components, each a web server; the first fetches a page of the second through the value of `%IP`.
pub(crate) const PAIR: [(&str, &str); 4] = [
    (
        "bin/query",
        r#"#!/bin/sh
case $1 in
os) echo busybox/1 ;;
secrets) echo PAIR_KEY ;;
components) printf 'front\nback_end\n' ;;
ports) printf '8081\n8082\n' ;;
volumes) echo /srv/pages ;;
health) echo 'test "$(wget -q -O - "http://$PAIR_HOST:8082/name")" = "the back"' ;;
env) cat <<'END'
PAIR_HOST=%IP
PAIR_URL=http://%IP:8081/
NO=no
PAIR_NUMBER=1.0
PAIR_TEXT=it's "100%" $HOME $(PAIR_NUMBER) $$ \n: # {x}
END
;;
esac
"#,
    ),
    (
        "bin/build",
        "#!/bin/sh\nmkdir -p /srv/pages /srv/back\necho 'from the image' >/srv/pages/page\n\
         echo 'the back' >/srv/back/name\nchmod 750 /srv/pages\nchown 1000:1000 /srv/pages/page\n",
    ),
    (
        "bin/run",
        "#!/bin/sh\ncase $1 in\nfront) env -0 >/srv/pages/env; exec httpd -f -p 8081 -h /srv/pages ;;\n\
         back_end) exec httpd -f -p 8082 -h /srv/back ;;\nesac\nexit 2\n",
    ),
    ("README.md", "A pair.\n"),
];

pub(crate) const TEXT: &str = r#"it's "100%" $HOME $(PAIR_NUMBER) $$ \n: # {x}"#;

/// Creates the service `name` of a pack, without starting it.
#[track_caller]
fn service(env: &TestEnv, pack: &Path, name: &str, options: &[&str]) {
    env.import_busybox();
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "base", "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", "base", "-t", "instance", "--network", "none"]);
    let mut start = env.svp(["run", "instance", "--name", name, "-d"]);
    success(start.args(options));
    env.ok(["stop", name]);
}

#[track_caller]
fn secret(env: &TestEnv, name: &str, variable: &str) -> String {
    let variables: Value =
        serde_json::from_str(&env.ok(["env", name, "--format", "json"])).unwrap();
    variables[variable].as_str().unwrap().to_owned()
}

/// Parses YAML documents with an independent parser.
#[track_caller]
fn parse(env: &TestEnv, text: &str) -> Vec<Value> {
    let file = env.path("parse.yaml");
    std::fs::write(&file, text).unwrap();
    let script =
        "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let read = run("/usr/bin/python3", ["-c".as_ref(), script.as_ref(), file.as_os_str()]);
    serde_json::from_str(&read).unwrap()
}

/// Checks an object with Kubernetes' schema of its kind, which refuses unknown fields.
#[track_caller]
fn check_kubernetes(env: &TestEnv, object: &Value) {
    const CHECK: &str = "
import json, sys
from jsonschema import Draft7Validator
definitions = json.load(open(sys.argv[1]))
thing = json.load(open(sys.argv[2]))
schema = dict(definitions, **{'$ref': '#/definitions/' + thing['kind']})
errors = list(Draft7Validator(schema).iter_errors(thing))
for error in errors:
    print(list(error.absolute_path), error.message, file=sys.stderr)
sys.exit(bool(errors))
";
    let definitions = repo().join("tests/it/support/schema/kubernetes/definitions.json");
    let file = env.path("object.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let arguments: [&OsStr; 4] =
        ["-c".as_ref(), CHECK.as_ref(), definitions.as_ref(), file.as_ref()];
    run("/usr/bin/python3", arguments);
}

#[test]
#[should_panic(expected = "hostnam")]
fn the_schema_of_kubernetes_rejects_unknown_fields() {
    let env = TestEnv::new();
    let spec = serde_json::json!({"selector": {}, "template": {"spec": {"containers": [], "hostnam": "x"}}});
    let deployment =
        serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec});
    check_kubernetes(&env, &deployment);
}

#[test]
fn kubernetes_objects_match_their_schema() {
    let env = TestEnv::new();
    let pack = env.write_pack("pair", &PAIR);
    let here = env.path("shown");
    std::fs::create_dir(&here).unwrap();
    let shown = format!("{}:/shown:ro", here.display());
    service(&env, &pack, "Other", &[]);
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:8081");
    let options = [
        "-p",
        &publish,
        "-v",
        &shown,
        "-e",
        "MORE=5",
        "-e",
        "discovery.type-x=y",
        "--link",
        "Other:far-pair",
        "--memory",
        "1g",
    ];
    success(env.svp(["run", "instance", "--name", "a.Pair", "-d"]).args(options));
    env.ok(["stop", "a.Pair"]);
    let key = secret(&env, "a.Pair", "PAIR_KEY");

    let all = parse(&env, &env.ok(["export", "a.Pair", "--format", "kube"]));
    let kinds: Vec<&str> = all.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Secret", "ConfigMap", "PersistentVolumeClaim", "Deployment", "Service"]);
    for object in &all {
        check_kubernetes(&env, object);
    }
    assert_eq!(all[1]["data"]["PAIR_URL"], "http://a-pair:8081/");
    assert_eq!(all[1]["data"]["PAIR_TEXT"], TEXT);
    assert_eq!(all[1]["data"]["NO"], "no");
    assert_eq!(all[1]["data"]["MORE"], "5");
    assert_eq!(all[1]["data"]["discovery.type-x"], "y");
    assert_eq!(all[4]["metadata"]["name"], "a-pair");
    let ports = all[4]["spec"]["ports"].as_array().unwrap();
    let ports: Vec<_> = ports.iter().map(|port| port["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [8081, 8082]);
    let pod = &all[3]["spec"]["template"]["spec"];
    let containers = pod["containers"].as_array().unwrap();
    let commands: Vec<_> =
        containers.iter().map(|one| (&one["name"], &one["command"][1])).collect();
    assert_eq!(
        commands,
        [(&"front".into(), &"front".into()), (&"back-end".into(), &"back_end".into())]
    );
    assert_eq!(containers[0]["ports"][0]["hostPort"], port);
    assert_eq!(containers[1]["resources"]["limits"], serde_json::json!({"memory": "1Gi"}));
    assert_eq!(containers[1]["envFrom"][1]["secretRef"]["name"], "other");
    assert_eq!(containers[1]["envFrom"][1]["prefix"], "FAR_PAIR_");
    assert_eq!(containers[1]["envFrom"][3]["secretRef"]["name"], "a-pair");
    assert!(containers[1]["envFrom"][3]["prefix"].is_null());
    assert!(
        containers[0]["readinessProbe"]["exec"]["command"][2].as_str().unwrap().contains("wget")
    );
    assert_eq!(pod["initContainers"][0]["image"], "localhost/instance:latest");

    let unit = env.ok(["export", "a.Pair", "--format", "systemd"]);
    assert!(unit.contains("\nAfter=svp-Other.service"), "{unit}");

    // The secret is only in the Secret object, which --secrets can omit or write alone.
    let without = env.ok(["export", "a.Pair", "--format", "kube", "--secrets", "without"]);
    let only = env.ok(["export", "a.Pair", "--format", "kube", "--secrets", "only"]);
    let [only] = &parse(&env, &only)[..] else { panic!("{only}") };
    assert_eq!(only, &all[0]);
    let encoded = only["data"]["PAIR_KEY"].as_str().unwrap();
    assert!(!without.contains(encoded) && !without.contains(&key), "{without}");
    assert_eq!(parse(&env, &without), all[1..]);

    let named = ["--image", "registry.example.com/team/pair:1"];
    let arguments = ["export", "a.Pair", "--format", "kube", "--secrets", "without"];
    let named = env.ok(arguments.iter().chain(&named));
    assert!(named.contains("image: registry.example.com/team/pair:1\n"), "{named}");
    assert!(named.contains("imagePullPolicy: IfNotPresent\n"), "{named}");
}

/// Waits for the web server on a loopback port; returns its page.
#[track_caller]
fn page(port: u16, path: &str, log: impl Fn() -> String) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let url = format!("http://127.0.0.1:{port}/{path}");
        let mut fetch = Command::new("/usr/bin/python3");
        let script = "import sys, urllib.request as r\nsys.stdout.buffer.write(r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=5).read())";
        let result = output(fetch.args(["-c", script, &url]));
        if result.status.success() {
            return String::from_utf8(result.stdout).unwrap();
        }
        assert!(Instant::now() < until, "{}{}", transcript(&fetch, &result), log());
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Loads the image into podman with the commands that `svp export` prints, and plays the service's YAML.
#[track_caller]
fn play<'a>(
    env: &TestEnv,
    podman: &'a Podman<'a>,
    name: &str,
) -> crate::support::podman::Played<'a> {
    let mut export = env.svp(["export", name, "--format", "kube", "--secrets", "without"]);
    let exported = output(&mut export);
    let notes = String::from_utf8_lossy(&exported.stderr).into_owned();
    for command in [
        "svp save instance:latest --allow-secrets | podman load",
        "podman tag docker.io/library/instance:latest localhost/instance:latest",
    ] {
        assert!(notes.contains(command), "{notes}");
    }
    let archive = env.path("instance.tar");
    let to = format!("oci-archive:{}", archive.display());
    env.ok(["save", "instance:latest", "--allow-secrets", "-o", &to]);
    podman.load(&archive);
    let names = ["docker.io/library/instance:latest", "localhost/instance:latest"];
    success(podman.command(["tag"]).args(names));
    // The podman of Debian 12 can't take an environment from a Secret.
    let file = env.path("secret.json");
    std::fs::write(&file, env.ok(["export", name, "--format", "kube", "--secrets", "podman-4.3"]))
        .unwrap();
    success(podman.command(["secret", "create", name]).arg(&file));
    let file = env.path("service.yaml");
    std::fs::write(&file, &exported.stdout).unwrap();
    podman.play(&file)
}

#[test]
fn podman_plays_a_service_with_a_health_check() {
    let env = TestEnv::new();
    let port = free_port();
    let publish = format!("{port}:8080");
    service(&env, &pack("hello"), "greeter", &["-p", &publish]);
    let password = secret(&env, "greeter", "HELLO_PASSWORD");
    let podman = Podman::new(&env);
    let played = play(&env, &podman, "greeter");
    let client = ["/service/bin/client"];
    let container = played.container("greeter");
    let stdout = container.exec_until_ok(Duration::from_secs(60), &client);
    assert_eq!(stdout, "hello from the instance of hello\n");
    success(
        podman.command(["healthcheck", "run", container.name()]).env("DISABLE_HC_SYSTEMD", "true"),
    );
    let through = format!("http://hello:{password}@127.0.0.1:{port}/");
    let mut wget = env.command("busybox");
    assert_eq!(success(wget.args(["wget", "-q", "-O", "-", &through])), stdout);
    // The value of %IP leads to the pod from inside the pod, too.
    let own = "wget -q -O - http://hello:$HELLO_PASSWORD@$HELLO_HOST:8080/";
    assert_eq!(success(&mut container.exec(&["sh", "-c", own])), stdout);
}

#[test]
fn podman_plays_a_service_of_two_components() {
    let env = TestEnv::new();
    let pack = env.write_pack("pair", &PAIR);
    let port = free_port();
    service(&env, &pack, "pair", &["-p", &format!("127.0.0.1:{port}:8081")]);
    let podman = Podman::new(&env);
    let played = play(&env, &podman, "pair");
    let front = played.container("front");
    assert_eq!(page(port, "page", || front.log()), "from the image\n");
    // An unpublished port is reachable at most at the service's own address.
    let ports = played.ports();
    assert!(ports.contains("127.0.0.1:") && !ports.contains("0.0.0.0"), "{ports}");
    let variables = page(port, "env", || front.log());
    let variables: BTreeMap<&str, &str> =
        variables.split('\0').filter_map(|pair| pair.split_once('=')).collect();
    let key = secret(&env, "pair", "PAIR_KEY");
    let expected = [
        ("PAIR_KEY", key.as_str()),
        ("PAIR_HOST", "pair"),
        ("PAIR_URL", "http://pair:8081/"),
        ("NO", "no"),
        ("PAIR_NUMBER", "1.0"),
        ("PAIR_TEXT", TEXT),
    ];
    for (name, value) in expected {
        assert_eq!(variables.get(name), Some(&value), "{name}");
    }
    // One component reaches the other through the value of %IP: the probe fetches it.
    let text = env.ok(["export", "pair", "--format", "kube"]);
    let all = parse(&env, &text);
    let pod = &all[3]["spec"]["template"]["spec"];
    let probe = pod["containers"][0]["readinessProbe"]["exec"]["command"][2].as_str().unwrap();
    front.exec_until_ok(Duration::from_secs(30), &["sh", "-c", probe]);

    // The script that fills new volumes keeps existing data, and resumes an interrupted copy.
    let script = pod["initContainers"][0]["command"][2].as_str().unwrap();
    let script =
        script.replace("/volumes/pair-srv-pages", "/tmp/new").replace("/srv/pages ", "/service ");
    let test = format!(
        "fill_new() {{ sh -c '{}'; }}\n{}",
        script.replace('\'', r"'\''"),
        "set -eu; mkdir -p /tmp/new/lost+found; fill_new; test -x /tmp/new/bin/run; test ! -e /tmp/new/.filling
         rm -r /tmp/new/bin; echo mine >/tmp/new/README.md; fill_new
         test ! -e /tmp/new/bin; grep -qx mine /tmp/new/README.md
         touch /tmp/new/.filling; fill_new; test -x /tmp/new/bin/run; test ! -e /tmp/new/.filling
         rm -r /tmp/new; mkdir /tmp/new; touch /tmp/new/.hidden; fill_new; test ! -e /tmp/new/bin"
    );
    success(&mut front.exec(&["sh", "-c", &test]));
    let owner = success(&mut front.exec(&["stat", "-c", "%a %U", "/srv/pages"]));
    assert_eq!(owner, "750 root\n");
}

/// Runs the command of a unit's key, with only the unit's environment.
fn start_as_systemd(unit: &str, key: &str) -> Child {
    let lines = |key: &str| {
        let key = format!("{key}=");
        unit.lines()
            .filter_map(move |line| line.strip_prefix(&key).map(String::from))
            .collect::<Vec<_>>()
    };
    let [line] = &lines(key)[..] else { panic!("{key} in {unit}") };
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    for variable in lines("Environment") {
        let (name, value) = variable.split_once('=').unwrap();
        command.env(name, value);
    }
    command.stdout(std::process::Stdio::null()).spawn().unwrap()
}

#[test]
fn systemd_runs_a_service_with_svp() {
    let env = TestEnv::new();
    service(&env, &pack("hello"), "greeter", &[]);
    let password = secret(&env, "greeter", "HELLO_PASSWORD");
    let dir = env.path("units");
    let printed = env.ok(["export", "greeter", "--format", "systemd", "-o", dir.to_str().unwrap()]);
    let file = dir.join("svp-greeter.service");
    assert_eq!(printed, format!("{}\n", file.display()));
    success(env.command("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
    let unit = std::fs::read_to_string(&file).unwrap();
    assert!(!unit.contains(&password) && unit.contains("\nRestart=on-failure\n"), "{unit}");

    let mut service = start_as_systemd(&unit, "ExecStart");
    let until = Instant::now() + Duration::from_secs(60);
    while !output(&mut env.svp(["health", "greeter"])).status.success() {
        assert!(Instant::now() < until && service.try_wait().unwrap().is_none(), "{unit}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(start_as_systemd(&unit, "ExecStop").wait().unwrap().success());
    let code = service.wait().unwrap().code();
    assert!(code == Some(0) || unit.contains(&format!("SuccessExitStatus={}\n", code.unwrap())));

    // Existing files are not replaced; identical content is accepted.
    let again = ["export", "greeter", "--format", "systemd", "-o", dir.to_str().unwrap()];
    env.ok(again);
    std::fs::write(&file, unit + "# mine\n").unwrap();
    let error = env.fails(2, again);
    assert!(error.contains("already exists") && error.contains("--force"), "{error}");
    env.ok(again.iter().chain(&["--force"]));
}

/// The keys that svp may write, with podman's names for them.
const QUADLET: [(&str, &[&str]); 5] = [
    ("Unit", &["Description", "StartLimitIntervalSec", "StartLimitBurst"]),
    (
        "Container",
        &[
            "ContainerName",
            "Image",
            "Pull",
            "RunInit",
            "PodmanArgs",
            "Pod",
            "HostName",
            "PublishPort",
            "Network",
            "Entrypoint",
            "Exec",
            "WorkingDir",
            "Environment",
            "Secret",
            "Volume",
            "HealthCmd",
            "HealthInterval",
            "HealthTimeout",
        ],
    ),
    ("Pod", &["PodName", "PublishPort", "Network", "PodmanArgs"]),
    ("Service", &["Restart"]),
    ("Install", &["WantedBy"]),
];

/// Returns the services that podman 5's generator creates from a directory of units; systemd must accept them.
#[track_caller]
fn generate(env: &TestEnv, units: &Path) -> BTreeMap<String, String> {
    let generator = file_of_machine(env, "usr/libexec/podman/quadlet");
    let out = env.path("generated");
    std::fs::create_dir(&out).unwrap();
    let mut generate = env.command(generator);
    success(generate.args(["-user", "-no-kmsg-log"]).arg(&out).env("QUADLET_UNIT_DIRS", units));
    let files = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "service")).collect();
    let mut verify = env.command("systemd-analyze");
    let result = output(verify.args(["verify", "--man=no"]).args(&files));
    assert!(
        result.status.success() && result.stderr.is_empty(),
        "{}",
        transcript(&verify, &result)
    );
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

#[test]
fn quadlet_units_contain_no_secrets() {
    let env = TestEnv::new();
    let pack = env.write_pack("pair", &PAIR);
    let options = ["--restart", "always", "--memory", "256m", "--cpus", "1.5", "--pids", "100"];
    service(&env, &pack, "pair", &options);
    let key = secret(&env, "pair", "PAIR_KEY");
    let dir = env.path("units");
    let arguments = ["export", "pair", "--format", "quadlet"];
    let printed = env.ok(arguments.iter().chain(&["-o", dir.to_str().unwrap()]));
    let files: Vec<_> = printed.lines().map(|line| line.rsplit('/').next().unwrap()).collect();
    let expected = ["pair.pod", "pair-front.container", "pair-back_end.container"];
    assert_eq!(files, expected);
    let mut all = String::new();
    for line in printed.lines() {
        let text = std::fs::read_to_string(line).unwrap();
        let mut section = "";
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[') {
                Some(name) => section = name.trim_end_matches(']'),
                None => {
                    let (key, _) = line.split_once('=').unwrap();
                    let known = QUADLET.iter().find(|(name, _)| *name == section);
                    assert!(
                        known.is_some_and(|(_, keys)| keys.contains(&key)),
                        "{section}: {line}"
                    );
                }
            }
        }
        all += &text;
    }
    assert!(!all.contains(&key), "{all}");
    let address = env.ok(["env", "pair", "--format", "json"]);
    let address: Value = serde_json::from_str(&address).unwrap();
    let address = address["PAIR_HOST"].as_str().unwrap();
    for line in [
        format!("PublishPort={address}:8081:8081"),
        format!("Environment=PAIR_HOST={address}"),
        r#"Environment="PAIR_TEXT=it's \"100%%\" $$HOME $$(PAIR_NUMBER) $$$$ \\n: # {x}""#.into(),
        "Secret=pair-PAIR_KEY,type=env,target=PAIR_KEY".into(),
        "Volume=pair.srv-pages:/srv/pages".into(),
        "Pod=pair.pod".into(),
        "PodmanArgs=--memory 256m --cpus 1.5".into(),
        "PodmanArgs=--pids-limit 100".into(),
        "Exec=back_end".into(),
        "Restart=always".into(),
    ] {
        assert!(all.contains(&format!("\n{line}\n")), "{line} in:\n{all}");
    }

    let services = generate(&env, &dir);
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    let expected = ["pair-back_end.service", "pair-front.service", "pair-pod.service"];
    assert_eq!(names, expected);
    let front = &services["pair-front.service"];
    for part in [
        "BindsTo=pair-pod.service\n",
        r#" --env "PAIR_TEXT=it's \"100%%\" $$HOME $$(PAIR_NUMBER) $$$$ \\n: # {x}" "#,
        r#" --health-cmd "[\"/bin/sh\",\"-c\","#,
        " --secret pair-PAIR_KEY,type=env,target=PAIR_KEY ",
        " -v pair.srv-pages:/srv/pages ",
        " localhost/instance:latest front\n",
    ] {
        assert!(front.contains(part), "{part} in:\n{front}");
    }

    // The script that creates the secrets pipes the values to podman: no secret is on a command line.
    let podman = Podman::new(&env);
    let bin = env.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let real = podman.command(["$@"]);
    let words = std::iter::once(real.get_program()).chain(real.get_args());
    let words: Vec<String> = words.map(|word| format!("\"{}\"", word.to_str().unwrap())).collect();
    let log = env.path("log");
    let path = std::env::var("PATH").unwrap();
    let wrapper = format!(
        "#!/bin/sh\necho \"$@\" >>{}\nPATH='{path}' exec {}\n",
        log.display(),
        words.join(" ")
    );
    std::fs::write(bin.join("podman"), wrapper).unwrap();
    run("chmod", ["755".as_ref(), bin.join("podman").as_os_str()]);
    let script = env.path("secrets.sh");
    std::fs::write(&script, env.ok(arguments.iter().chain(&["--secrets", "only"]))).unwrap();
    let path = format!("{}:{path}", bin.display());
    // A second run replaces the secrets.
    for _ in 0..2 {
        success(env.command("sh").arg(&script).env("PATH", &path));
    }
    assert!(!std::fs::read_to_string(&log).unwrap().contains(&key));
    let archive = env.path("instance.tar");
    let to = format!("oci-archive:{}", archive.display());
    env.ok(["save", "instance", "--allow-secrets", "-o", &to]);
    let image = podman.load(&archive);
    let secret = "--secret=pair-PAIR_KEY,type=env,target=PAIR_KEY";
    let shell = "--entrypoint=/bin/sh";
    let read = podman.run(&[secret, "--network=none", shell, &image, "-c", "echo \"$PAIR_KEY\""]);
    assert_eq!(read, format!("{key}\n"));
}

#[test]
fn invalid_exports_are_refused() {
    let env = TestEnv::new();
    service(&env, &pack("hello"), "greeter", &["-v", "data:/with:colon"]);
    let error = env.fails(2, ["export", "greeter", "--format", "quadlet"]);
    assert!(error.contains("/with:colon"), "{error}");
    for arguments in [
        &["export", "nobody", "--format", "kube"][..],
        &["export", "greeter"],
        &["export", "greeter", "--format", "compose"],
        &["export", "greeter", "--format", "systemd", "--secrets", "only"],
        &["export", "greeter", "--format", "quadlet", "--secrets", "podman-4.3"],
        &["export", "greeter", "--format", "kube", "--force"],
    ] {
        env.fails(2, arguments);
    }
    let dir = env.path("out");
    env.ok(["export", "greeter", "--format", "kube", "-o", dir.to_str().unwrap()]);
    let listing = run(
        "stat",
        [
            OsStr::new("-c"),
            "%a %n".as_ref(),
            dir.join("greeter-secret.yaml").as_ref(),
            dir.join("greeter.yaml").as_ref(),
        ],
    );
    let modes: Vec<_> = listing.lines().map(|line| &line[..3]).collect();
    assert_eq!(modes, ["600", "644"]);
    let rest = std::fs::read_to_string(dir.join("greeter.yaml")).unwrap();
    assert!(!rest.contains("kind: Secret"), "{rest}");
}

#[test]
fn similar_names_stay_distinct() {
    let env = TestEnv::new();
    let volumes = ["-v", "my.data:/one", "-v", "my_data:/two", "-v", "my.data:/three"];
    service(&env, &pack("hello"), "greeter", &volumes);
    let all = parse(&env, &env.ok(["export", "greeter", "--format", "kube"]));
    let claims: Vec<_> = all
        .iter()
        .filter(|object| object["kind"] == "PersistentVolumeClaim")
        .map(|claim| claim["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(claims, ["my-data", "my-data-2", "greeter-var-lib-hello"]);
    let pod = &all.iter().find(|object| object["kind"] == "Deployment").unwrap()["spec"];
    let mounts = pod["template"]["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    let at = |path: &str| {
        let mount = mounts.iter().find(|mount| mount["mountPath"] == path);
        mount.unwrap()["name"].as_str().unwrap()
    };
    assert_eq!([at("/one"), at("/two"), at("/three")], ["my-data", "my-data-2", "my-data"]);

    // An image selected by digest is exported by that digest, and pushed by a tag.
    let digest = format!("sha256:{}", "5".repeat(64));
    let image = format!("registry.example.com/team/greeter:1@{digest}");
    let mut export = env.svp(["export", "greeter", "--format", "kube", "--image", &image]);
    let stdout = output(&mut export);
    let text = String::from_utf8_lossy(&stdout.stdout);
    assert!(
        text.contains(&format!("image: registry.example.com/team/greeter@{digest}\n")),
        "{text}"
    );
    let notes = String::from_utf8_lossy(&stdout.stderr);
    assert!(notes.contains("docker://registry.example.com/team/greeter:1 "), "{notes}");
}
