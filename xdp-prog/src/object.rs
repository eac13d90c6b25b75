//! The compiled programs, as `build.sh` left them in `obj/`.

/// Gives embedded bytes the alignment that an ELF reader wants.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static STEER: &Aligned<[u8]> = &Aligned(*include_bytes!("../obj/steer.o"));
static DROPPER: &Aligned<[u8]> = &Aligned(*include_bytes!("../obj/dropper.o"));

/// The XDP program: `bpf/main.rs`.
pub static STEER_OBJECT: &[u8] = &STEER.0;

/// The rig's lossy wire: `bpf/dropper.rs`. Only the rig refers to it, so no product carries it.
pub static DROPPER_OBJECT: &[u8] = &DROPPER.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_aligned_bpf_elf_files() {
        const ELF: &[u8] = b"\x7fELF";
        const EM_BPF: [u8; 2] = 247u16.to_le_bytes();
        for object in [STEER_OBJECT, DROPPER_OBJECT] {
            assert_eq!(object.as_ptr() as usize % 32, 0);
            assert!(object.starts_with(ELF));
            assert_eq!(object[18..20], EM_BPF);
        }
    }
}
