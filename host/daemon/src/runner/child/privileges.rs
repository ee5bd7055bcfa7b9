//! Removal of all capabilities from a process that runs a module.

use rustix::{
    io::Result,
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
        capability_is_in_bounding_set, remove_capability_from_bounding_set, set_capabilities,
        set_capabilities_secure_bits,
    },
};

/// Secure bits that make root a user like others; no program changes that, and none of this can be
/// taken back.
const NO_ROOT: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);

/// Gives up every capability for this thread and all that it starts; there is no other thread yet.
/// A daemon that runs as root has all of them. What root owns stays open, as far as the sandbox
/// opens it; what others own does not.
pub(super) fn give_up() -> Result<()> {
    let held = capabilities(None)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let for_good = match held.effective.contains(CapabilitySet::SETPCAP) {
        true => close_the_way_back(),
        // A process that gains no privileges has no way back either.
        false => Ok(()),
    };
    // Filters of system calls refuse even to give up what a process does not have. The ambient set
    // is a part of the inheritable one.
    if held != none {
        set_capabilities(None, none)?;
    }
    for_good
}

fn close_the_way_back() -> Result<()> {
    for capability in CapabilitySet::all().iter() {
        // The kernel may know fewer than we do.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    set_capabilities_secure_bits(NO_ROOT)
}
