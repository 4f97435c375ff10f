//! Which attempt has which GPU. The engine, asked for "one GPU", gives everyone the first one, so
//! the devices are named here. It must never give a device out twice beyond its thousand
//! thousandths; the master places by the sum, this table by the device.

use std::sync::{Arc, Mutex, PoisonError};

/// Thousandths of a whole device.
const WHOLE_MILLI: u64 = 1000;

/// The free thousandths of each device.
#[derive(Debug, Clone)]
pub(super) struct Gpus {
    free_milli: Arc<Mutex<Vec<u64>>>,
}

/// Devices in use; dropping it gives them back.
#[derive(Debug)]
pub(super) struct GpuHold {
    gpus: Gpus,
    taken: Vec<(usize, u64)>,
}

impl Gpus {
    /// A table of `count` free devices.
    pub(super) fn new(count: u32) -> Self {
        Self { free_milli: Arc::new(Mutex::new(vec![WHOLE_MILLI; count as usize])) }
    }

    /// Takes whole devices and, for a rest, the fullest device that still has room for it; `None`
    /// when the devices cannot hold the need.
    pub(super) fn find_hold(&self, need_milli: u64) -> Option<GpuHold> {
        let mut free = self.free_milli.lock().unwrap_or_else(PoisonError::into_inner);
        let wholes = usize::try_from(need_milli / WHOLE_MILLI).ok()?;
        let rest = need_milli % WHOLE_MILLI;
        let mut taken = free
            .iter()
            .enumerate()
            .filter(|(_, milli)| **milli == WHOLE_MILLI)
            .map(|(device, _)| (device, WHOLE_MILLI))
            .take(wholes)
            .collect::<Vec<_>>();
        if taken.len() < wholes {
            return None;
        }
        if rest > 0 {
            let is_taken = |device: usize| taken.iter().any(|(other, _)| *other == device);
            let (device, _) = free
                .iter()
                .enumerate()
                .filter(|(device, milli)| **milli >= rest && !is_taken(*device))
                .min_by_key(|(device, milli)| (**milli, *device))?;
            taken.push((device, rest));
        }
        for (device, milli) in &taken {
            free[*device] -= milli;
        }
        Some(GpuHold { gpus: self.clone(), taken })
    }

    /// Takes the devices that a container has already: wholes first, as they were given. What is
    /// not free, or not there any more, cannot be held.
    pub(super) fn hold_again(&self, devices: &[usize], need_milli: u64) -> GpuHold {
        let mut free = self.free_milli.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut left) = (Vec::new(), need_milli);
        for device in devices {
            let Some(free) = free.get_mut(*device) else { continue };
            let milli = left.min(WHOLE_MILLI).min(*free);
            *free -= milli;
            left -= milli;
            taken.push((*device, milli));
        }
        GpuHold { gpus: self.clone(), taken }
    }
}

impl GpuHold {
    /// The devices as the engine names them.
    pub(super) fn device_ids(&self) -> Vec<String> {
        self.taken.iter().map(|(device, _)| device.to_string()).collect()
    }
}

impl Drop for GpuHold {
    fn drop(&mut self) {
        let mut free = self.gpus.free_milli.lock().unwrap_or_else(PoisonError::into_inner);
        for (device, milli) in &self.taken {
            free[*device] += milli;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_never_given_out_twice() {
        let gpus = Gpus::new(2);
        let one = gpus.find_hold(1000).unwrap();
        assert_eq!(one.device_ids(), ["0"]);
        let half = gpus.find_hold(500).unwrap();
        assert_eq!(half.device_ids(), ["1"]);
        assert!(gpus.find_hold(1000).is_none());
        let other_half = gpus.find_hold(500).unwrap();
        assert_eq!(other_half.device_ids(), ["1"]);
        assert!(gpus.find_hold(1).is_none());
        drop(one);
        assert_eq!(gpus.find_hold(1000).unwrap().device_ids(), ["0"]);
    }

    #[test]
    fn a_container_that_is_taken_up_holds_its_own_devices() {
        let gpus = Gpus::new(2);
        let before = gpus.hold_again(&[1, 0, 7], 1400);
        assert_eq!(before.device_ids(), ["1", "0"]);
        assert!(gpus.find_hold(700).is_none());
        assert_eq!(gpus.find_hold(600).unwrap().device_ids(), ["0"]);
        drop(before);
        assert!(gpus.find_hold(2000).is_some());
    }

    #[test]
    fn a_part_goes_where_the_least_room_is_left() {
        let gpus = Gpus::new(2);
        let first = gpus.find_hold(300).unwrap();
        let second = gpus.find_hold(300).unwrap();
        assert_eq!((first.device_ids(), second.device_ids()), (vec!["0".into()], vec!["0".into()]));
        assert_eq!(gpus.find_hold(1400).map(|hold| hold.device_ids()).unwrap(), ["1", "0"]);
        assert!(gpus.find_hold(2000).is_none());
        assert_eq!(gpus.find_hold(0).unwrap().device_ids(), Vec::<String>::new());
    }
}
