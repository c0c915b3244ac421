//! What ranks tell each other when they meet: host, process, cores.

/// One rank, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub pid: u32,
    pub host: String,
    /// Numbers of the cores that it may run on.
    pub cores: Vec<u32>,
}

impl Identity {
    pub fn of_this_process(host: String) -> Identity {
        Identity { pid: std::process::id(), host, cores: allowed_cores() }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = [&[self.pid], self.cores.as_slice()].concat();
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.splice(0..0, (numbers.len() as u32).to_le_bytes());
        bytes.extend(self.host.as_bytes());
        bytes
    }

    /// Bytes that are cut off give an identity with what is there: it only serves messages.
    pub fn from_bytes(bytes: &[u8]) -> Identity {
        let word = |at: usize| {
            bytes
                .get(4 * at..4 * at + 4)
                .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let numbers = (word(0) as usize).min(bytes.len() / 4);
        let host = bytes.get(4 * (1 + numbers)..).unwrap_or_default();
        Identity {
            pid: word(1),
            host: String::from_utf8_lossy(host).into_owned(),
            cores: (2..=numbers).map(word).collect(),
        }
    }
}

/// The cores of this process's affinity mask; where the system has none, as many as it counts.
fn allowed_cores() -> Vec<u32> {
    #[cfg(target_os = "linux")]
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        let max = rustix::thread::CpuSet::MAX_CPU;
        return (0..max).filter(|&cpu| set.is_set(cpu)).map(|cpu| cpu as u32).collect();
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (0..count as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_journey() {
        let id = Identity { pid: 4242, host: "node-17".into(), cores: vec![0, 5, 130] };
        assert_eq!(Identity::from_bytes(&id.to_bytes()), id);
        assert_eq!(Identity::from_bytes(&[1, 2]).host, "");
        assert!(!Identity::of_this_process(String::new()).cores.is_empty());
    }
}
