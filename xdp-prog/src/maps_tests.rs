//! The ABI holds what it promises: sizes, byte images, one name and sentence per verdict.

use super::*;

#[test]
fn types_have_the_sizes_that_the_maps_are_made_with() {
    assert_eq!(size_of::<Config>(), 16);
    assert_eq!(size_of::<PortEntry>(), 4);
    assert_eq!(size_of::<BlockEntry>(), 8);
    assert_eq!(size_of::<FlowKey>(), 40);
}

#[test]
fn byte_images_survive_a_round_trip() {
    let config = Config { queues: 4, flags: CONFIG_VLAN_OK, abi: ABI_VERSION, reserved: 0 };
    assert_eq!(Config::from_bytes(config.to_bytes()), config);
    let entry = PortEntry::new(PortState::Draining, PORT_HAS_FLOWS, 0x1ff);
    assert_eq!(PortEntry::from_bytes(entry.to_bytes()), entry);
    let key = FlowKey::new(Proto::Udp, ipv4_mapped([10, 0, 0, 1]), 80, [0x20; 16], 0xabcd);
    assert_eq!(FlowKey::from_bytes(&key.to_bytes()), key);
}

#[test]
fn an_unknown_port_state_is_off() {
    assert_eq!(PortEntry { state: 7, flags: 0, group: 0 }.state(), PortState::Off);
}

#[test]
fn every_verdict_has_its_own_index_name_and_sentence() {
    for (index, verdict) in Verdict::ALL.iter().enumerate() {
        assert_eq!(*verdict as usize, index);
        assert!(verdict.describe().ends_with('.'), "{} wants a sentence", verdict.name());
        let twins = Verdict::ALL.iter().filter(|other| other.name() == verdict.name()).count();
        assert_eq!(twins, 1, "{} is there twice", verdict.name());
        let redirects = verdict.name().starts_with("redirect_");
        assert!(redirects || verdict.name().starts_with("pass_"), "{} must say what it does", verdict.name());
    }
}

#[test]
fn indexes_stay_inside_their_maps() {
    assert!(xsk_index(MAX_STACKS - 1, MAX_QUEUES, MAX_QUEUES - 1) < MAX_STACKS * MAX_QUEUES);
    assert!(policy_index(Proto::Udp, u16::MAX) < POLICY_ENTRIES);
    assert!(bucket_index(MAX_GROUPS as u16 - 1, BUCKETS_PER_GROUP - 1) < MAX_GROUPS * BUCKETS_PER_GROUP);
    assert!(ephemeral_index(u16::MAX) < EPHEMERAL_BLOCKS);
}
