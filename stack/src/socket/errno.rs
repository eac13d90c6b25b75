//! Linux's error numbers, as far as sockets return them.

/// An error number as `errno` holds it. Zeroed memory is "no error".
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal;)*) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Errno = Errno($number);)*
        }

        impl core::fmt::Debug for Errno {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.0 {
                    $($number => f.write_str(stringify!($name)),)*
                    n => write!(f, "errno {n}"),
                }
            }
        }
    };
}

errnos! {
    EINTR = 4;
    EBADF = 9;
    EAGAIN = 11;
    ENOMEM = 12;
    EEXIST = 17;
    ENOENT = 2;
    EACCES = 13;
    EINVAL = 22;
    ENFILE = 23;
    EPIPE = 32;
    ELOOP = 40;
    ENOTSOCK = 88;
    EDESTADDRREQ = 89;
    ENONET = 64;
    EPROTO = 71;
    EMSGSIZE = 90;
    ENOPROTOOPT = 92;
    EOPNOTSUPP = 95;
    EAFNOSUPPORT = 97;
    EADDRINUSE = 98;
    EADDRNOTAVAIL = 99;
    ENETUNREACH = 101;
    ECONNABORTED = 103;
    ECONNRESET = 104;
    ENOBUFS = 105;
    EISCONN = 106;
    ENOTCONN = 107;
    ETIMEDOUT = 110;
    ECONNREFUSED = 111;
    EHOSTDOWN = 112;
    EHOSTUNREACH = 113;
    EALREADY = 114;
    EINPROGRESS = 115;
}

impl Errno {
    /// Whether this is an error at all.
    pub fn is_set(self) -> bool {
        self.0 != 0
    }
}
