//! Resource limits in the notation of podman, systemd and Kubernetes.

use super::yaml::Yaml;
use crate::sandbox::Resources;

/// Bytes in the largest unit that expresses them exactly: the number, and the unit's first letter.
fn amount(bytes: u64) -> (u64, Option<char>) {
    [(30, 'g'), (20, 'm'), (10, 'k')]
        .into_iter()
        .find(|(shift, _)| bytes.trailing_zeros() >= *shift && bytes > 0)
        .map_or((bytes, None), |(shift, unit)| (bytes >> shift, Some(unit)))
}

/// Thousandths as a decimal number.
fn decimal(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// podman's options for memory and CPUs, which apply to containers and to pods.
pub(super) fn podman(resources: &Resources) -> Vec<String> {
    let memory = resources.memory.map(|bytes| {
        let (number, unit) = amount(bytes);
        format!("--memory {number}{}", unit.unwrap_or('b'))
    });
    let cpus = resources.milli_cpus.map(|thousandths| format!("--cpus {}", decimal(thousandths)));
    memory.into_iter().chain(cpus).collect()
}

/// podman's option for the number of processes, which applies to containers only.
pub(super) fn podman_pids(resources: &Resources) -> Option<String> {
    resources.pids.map(|pids| format!("--pids-limit {pids}"))
}

/// The `resources` of a Kubernetes container, which can't limit the number of processes.
pub(super) fn kubernetes(resources: &Resources) -> Option<Yaml> {
    let memory = resources.memory.map(|bytes| {
        let (number, unit) = amount(bytes);
        unit.map_or(number.to_string(), |unit| format!("{number}{}i", unit.to_ascii_uppercase()))
    });
    let cpu = resources.milli_cpus.map(|thousandths| match thousandths % 1000 {
        0 => (thousandths / 1000).to_string(),
        _ => format!("{thousandths}m"),
    });
    let limits = Yaml::Map(Vec::new()).with_some("memory", memory).with_some("cpu", cpu);
    (limits != Yaml::Map(Vec::new())).then(|| [("limits", limits)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_others_write_them() {
        let cases = [
            (Some(512 << 20), Some(1500), "--memory 512m --cpus 1.5", "512Mi", "1500m"),
            (Some(2 << 30), Some(2000), "--memory 2g --cpus 2", "2Gi", "2"),
            (Some(1536 << 10), Some(50), "--memory 1536k --cpus 0.05", "1536Ki", "50m"),
            (Some(20_000_001), Some(10), "--memory 20000001b --cpus 0.01", "20000001", "10m"),
        ];
        for (memory, milli_cpus, options, kube_memory, cpu) in cases {
            let resources = Resources { memory, milli_cpus, pids: Some(9) };
            assert_eq!(podman(&resources).join(" "), options);
            let limits = Yaml::from([("memory", kube_memory.into()), ("cpu", cpu.into())]);
            assert_eq!(kubernetes(&resources), Some([("limits", limits)].into()));
        }
        let pids = Resources { pids: Some(9), ..Resources::default() };
        assert_eq!(podman_pids(&pids).unwrap(), "--pids-limit 9");
        assert!(podman(&pids).is_empty() && kubernetes(&pids).is_none());
    }
}
