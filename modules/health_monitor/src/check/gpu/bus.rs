//! The cards that the machine has, whether or not their driver runs.

use std::{fs, path::Path};

/// Vendor id of NVIDIA, and the first digits of the class of what draws or computes.
const NVIDIA: &str = "0x10de";
const DISPLAY: &str = "0x03";

/// Returns whether there is a card of NVIDIA in a folder of PCI devices.
pub(super) fn has_card(devices: &Path) -> bool {
    let Ok(devices) = fs::read_dir(devices) else { return false };
    devices.flatten().any(|device| {
        let begins = |file, with: &str| {
            let text = fs::read_to_string(device.path().join(file));
            text.is_ok_and(|text| text.starts_with(with))
        };
        begins("vendor", NVIDIA) && begins("class", DISPLAY)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_a_display_device_of_its_vendor() {
        let directory = tempfile::tempdir().expect("a directory");
        let check = |name: &str, vendor: &str, class: &str, expected: bool| {
            let device = directory.path().join(name).join("0000:01:00.0");
            fs::create_dir_all(&device).expect("a directory can be created");
            fs::write(device.join("vendor"), vendor).expect("a file can be written");
            fs::write(device.join("class"), class).expect("a file can be written");
            assert_eq!(has_card(&directory.path().join(name)), expected, "{name}");
        };
        check("card", "0x10de\n", "0x030000\n", true);
        check("compute", "0x10de\n", "0x030200\n", true);
        check("sound", "0x10de\n", "0x040300\n", false);
        check("other", "0x8086\n", "0x030000\n", false);
        assert!(!has_card(&directory.path().join("absent")));
    }
}
