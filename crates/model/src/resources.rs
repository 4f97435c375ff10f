//! What tasks need and workers have, in integers, so that sums are exact.

use std::fmt;

/// Amounts of the four things that are placed: milli-cores, bytes, bytes, milli-GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Resources {
    /// Processor time in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Storage in bytes.
    pub storage_bytes: u64,
    /// GPUs in thousandths of a device.
    pub gpu_milli: u64,
}

/// The name of one of the four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Cores.
    Cpu,
    /// Memory.
    Memory,
    /// Storage.
    Storage,
    /// GPUs.
    Gpu,
}

/// The first need that does not fit: "wants 4 cores, 1.5 free".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lack {
    /// What there is too little of.
    pub resource: Resource,
    /// How much is wanted, in the unit of [`Resources`].
    pub wants: u64,
    /// How much there is, in the unit of [`Resources`].
    pub free: u64,
}

impl Resources {
    /// The four amounts with their names, in the order in which they are checked and shown.
    pub const fn parts(self) -> [(Resource, u64); 4] {
        [
            (Resource::Cpu, self.cpu_milli),
            (Resource::Memory, self.memory_bytes),
            (Resource::Storage, self.storage_bytes),
            (Resource::Gpu, self.gpu_milli),
        ]
    }

    /// The first of these needs that `free` cannot hold.
    pub fn find_lack(self, free: Self) -> Option<Lack> {
        self.parts()
            .into_iter()
            .zip(free.parts())
            .find(|((_, wants), (_, free))| wants > free)
            .map(|((resource, wants), (_, free))| Lack { resource, wants, free })
    }

    /// How many times these needs fit into `free`; `u64::MAX` when they are all zero.
    pub fn times_in(self, free: Self) -> u64 {
        self.parts()
            .into_iter()
            .zip(free.parts())
            .filter_map(|((_, wants), (_, free))| free.checked_div(wants))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Both amounts together; `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            cpu_milli: self.cpu_milli.checked_add(other.cpu_milli)?,
            memory_bytes: self.memory_bytes.checked_add(other.memory_bytes)?,
            storage_bytes: self.storage_bytes.checked_add(other.storage_bytes)?,
            gpu_milli: self.gpu_milli.checked_add(other.gpu_milli)?,
        })
    }

    /// What is left of this after `other` is taken; `None` when any part is too small.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            cpu_milli: self.cpu_milli.checked_sub(other.cpu_milli)?,
            memory_bytes: self.memory_bytes.checked_sub(other.memory_bytes)?,
            storage_bytes: self.storage_bytes.checked_sub(other.storage_bytes)?,
            gpu_milli: self.gpu_milli.checked_sub(other.gpu_milli)?,
        })
    }

    /// What is left of this after `other` is taken, with 0 where there is too little: a worker
    /// that came back smaller than what it already runs has nothing free, not less than nothing.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            storage_bytes: self.storage_bytes.saturating_sub(other.storage_bytes),
            gpu_milli: self.gpu_milli.saturating_sub(other.gpu_milli),
        }
    }

    /// These amounts `count` times; `None` on overflow.
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        Some(Self {
            cpu_milli: self.cpu_milli.checked_mul(count)?,
            memory_bytes: self.memory_bytes.checked_mul(count)?,
            storage_bytes: self.storage_bytes.checked_mul(count)?,
            gpu_milli: self.gpu_milli.checked_mul(count)?,
        })
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wants, free) = (self.wants, self.free);
        match self.resource {
            Resource::Cpu => write!(f, "wants {} cores, {} free", Milli(wants), Milli(free)),
            Resource::Gpu => write!(f, "wants {} GPUs, {} free", Milli(wants), Milli(free)),
            Resource::Memory => write!(f, "wants {} memory, {} free", Bytes(wants), Bytes(free)),
            Resource::Storage => write!(f, "wants {} storage, {} free", Bytes(wants), Bytes(free)),
        }
    }
}

/// Thousandths, shown without needless zeros: 1500 is `1.5`.
struct Milli(u64);

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{part:03}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// Bytes in the largest binary unit that keeps one digit after the point honest.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (name, size) in UNITS {
            if self.0 >= size {
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                let (whole, part) = (tenths / 10, tenths % 10);
                return if part == 0 {
                    write!(f, "{whole} {name}")
                } else {
                    write!(f, "{whole}.{part} {name}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu_milli: u64) -> Resources {
        Resources { cpu_milli, ..Resources::default() }
    }

    #[test]
    fn the_first_lack_is_told_in_words() {
        let lack = cpu(4000).find_lack(cpu(1500)).unwrap();
        assert_eq!(lack.to_string(), "wants 4 cores, 1.5 free");
        let memory = Resources { memory_bytes: 3 << 30, ..Resources::default() };
        let free = Resources { memory_bytes: 1536 << 20, ..Resources::default() };
        assert_eq!(memory.find_lack(free).unwrap().to_string(), "wants 3 GiB memory, 1.5 GiB free");
        assert_eq!(cpu(1500).find_lack(cpu(1500)), None);
    }

    #[test]
    fn needs_fit_as_often_as_their_scarcest_part() {
        assert_eq!(cpu(1000).times_in(cpu(3999)), 3);
        assert_eq!(cpu(0).times_in(cpu(1)), u64::MAX);
        let both = Resources { memory_bytes: 10, ..cpu(1) };
        assert_eq!(both.times_in(Resources { memory_bytes: 25, ..cpu(100) }), 2);
    }

    #[test]
    fn sums_never_wrap() {
        assert_eq!(cpu(u64::MAX).checked_add(cpu(1)), None);
        assert_eq!(cpu(1).checked_sub(cpu(2)), None);
        assert_eq!(cpu(1).saturating_sub(cpu(2)), cpu(0));
        assert_eq!(cpu(u64::MAX).checked_mul(2), None);
    }
}
