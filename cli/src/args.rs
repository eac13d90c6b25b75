//! The command line.

use clap::{Args, Parser, Subcommand};
use sidestep_stack::arena::Proto;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sudo sidestep up eth1                          start the daemon of eth1
  sudo sidestep run --dev eth1 -- nginx          serve every port of nginx through it
  sudo sidestep run --dev eth1 --port 6379 -- redis-server
  sudo sidestep run --dev eth1 --port 53/udp -- dnsmasq -d
  sidestep status                                what is going on
  sudo sidestep port off 80                      new connections to port 80 go to the kernel
  sudo sidestep down eth1                        take the daemon away again

Whatever sidestep does not take, the kernel serves: to the same program, on the same port.";

/// Runs unmodified network programs on a user-mode TCP/IP stack over AF_XDP.
#[derive(Parser, Debug)]
#[command(name = "sidestep", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start the daemon of a network device
    Up(Up),
    /// Stop the daemon of a network device and leave everything to the kernel
    Down(Down),
    /// Run a program on the user-mode stack (same pid: it is exec'ed)
    Run(Run),
    /// Switch ports on and off, live
    #[command(subcommand)]
    Port(Port),
    /// Show daemons, stacks and counters
    Status(Status),
    /// Count everything twice: frames, connections, ports, processes; exit 1 when something is lost
    Doctor(Doctor),
    /// List the calls of libc that the library interposes
    Calls,
}

#[derive(Args, Debug, Clone)]
pub(crate) struct Up {
    /// The network device, for example eth1
    #[arg(value_name = "DEV")]
    pub(crate) device: String,
    /// Replace another XDP program that is attached to the device
    #[arg(long)]
    pub(crate) replace: bool,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Packet buffers of 2048 bytes to set up for the device
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(4096..=4_194_304))]
    pub(crate) frames: u32,
    /// Attach in generic mode although the driver may have native XDP (slower; for tests)
    #[arg(long)]
    pub(crate) generic: bool,
    /// Never ask the driver for zero-copy
    #[arg(long)]
    pub(crate) copy: bool,
    /// Let processes of this user (or, with a leading @, group) use the device; root always may. May be repeated
    #[arg(long, value_name = "USER")]
    pub(crate) allow: Vec<String>,
    /// Append the daemon's log to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

impl Up {
    /// What `sidestep run` starts when no daemon is there.
    pub(crate) fn with_defaults(device: &str) -> Up {
        Up {
            device: device.to_owned(),
            replace: false,
            foreground: false,
            frames: 65_536,
            generic: false,
            copy: false,
            allow: Vec::new(),
            log: None,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Down {
    /// The network device
    #[arg(value_name = "DEV")]
    pub(crate) device: String,
    /// Although processes are attached: their connections are cut
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The device whose traffic to take; the only one that is up if not given
    #[arg(long, value_name = "DEV")]
    pub(crate) dev: Option<String>,
    /// Take only these local ports (80, 80/tcp, 53/udp; comma-separated or repeated); every port the program serves if not given
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = parse_port)]
    pub(crate) port: Vec<PortSpec>,
    /// Fail instead of running on the kernel when sidestep cannot be used
    #[arg(long)]
    pub(crate) strict: bool,
    /// Microseconds to spin for packets before sleeping; 0 sleeps at once
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) spin: Option<u32>,
    /// The program and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Port {
    /// Let sidestep serve a port
    On(PortSwitch),
    /// Give a port back to the kernel: new connections go there at once, live ones stay until they end
    Off(PortSwitch),
    /// List the ports that are served or were switched
    List {
        /// The device; all if not given
        #[arg(long, value_name = "DEV")]
        dev: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct PortSwitch {
    /// The port: 80, 80/tcp, or 53/udp
    #[arg(value_name = "PORT", value_parser = parse_port)]
    pub(crate) port: PortSpec,
    /// The device; needed only when several are up
    #[arg(long, value_name = "DEV")]
    pub(crate) dev: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// The device; all that are up if not given
    #[arg(value_name = "DEV")]
    pub(crate) device: Option<String>,
    /// For programs: one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The device; all that are up if not given
    #[arg(value_name = "DEV")]
    pub(crate) device: Option<String>,
    /// Show what adds up, too
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// A port on the command line: `80` and `80/tcp` are TCP's, `53/udp` is UDP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSpec {
    pub(crate) proto: Proto,
    pub(crate) port: u16,
}

impl std::fmt::Display for PortSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let proto = if self.proto == Proto::Udp { "udp" } else { "tcp" };
        write!(f, "{}/{proto}", self.port)
    }
}

fn parse_port(text: &str) -> Result<PortSpec, String> {
    let (number, proto) = match text.split_once('/').unwrap_or((text, "tcp")) {
        (number, "tcp") => (number, Proto::Tcp),
        (number, "udp") => (number, Proto::Udp),
        (_, other) => return Err(format!("a port is TCP's (80, 80/tcp) or UDP's (53/udp), not {other:?}")),
    };
    match number.parse::<u16>() {
        Ok(0) | Err(_) => Err("a port is a number from 1 to 65535".into()),
        Ok(port) => Ok(PortSpec { proto, port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(port: u16) -> PortSpec {
        PortSpec { proto: Proto::Tcp, port }
    }

    #[test]
    fn ports() {
        assert_eq!(parse_port("80"), Ok(tcp(80)));
        assert_eq!(parse_port("443/tcp"), Ok(tcp(443)));
        let dns = PortSpec { proto: Proto::Udp, port: 53 };
        assert_eq!((parse_port("53/udp"), dns.to_string().as_str()), (Ok(dns), "53/udp"));
        assert!(parse_port("53/sctp").unwrap_err().contains("UDP"));
        for bad in ["0", "65536", "-1", "http", "", "80/"] {
            assert!(parse_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_program_keeps_its_own_options() {
        let cli = Cli::try_parse_from(["sidestep", "run", "--port", "80,443", "nginx", "-g", "daemon off;"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.port, [tcp(80), tcp(443)]);
        assert_eq!(run.command, ["nginx", "-g", "daemon off;"]);
        let cli = Cli::try_parse_from(["sidestep", "run", "--", "redis-server", "--port", "1"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!((run.port.len(), run.command.len()), (0, 3));
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
