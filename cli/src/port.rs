//! `sidestep port`: switches ports, and lists them.

use crate::args::{Port, PortSpec};
use crate::daemon::state;
use crate::failure::{Context, Failure, Outcome, fail, print};
use crate::snapshot::Snapshot;
use sidestep_stack::arena::Policy;
use sidestep_stack::runtime::control::{Client, FdSet, Op, Request};

pub(crate) fn port(command: &Port) -> Outcome<()> {
    match command {
        Port::On(switch) => set(switch.dev.as_deref(), switch.port, Policy::On),
        Port::Off(switch) => set(switch.dev.as_deref(), switch.port, Policy::Off),
        Port::List { dev } => list(dev.as_deref()),
    }
}

/// The device that is meant: the one named, or the only one.
pub(crate) fn device(named: Option<&str>) -> Outcome<String> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let mut up = state::devices();
    match up.len() {
        0 => fail!("no daemon is up here (sidestep up DEV starts one)"),
        1 => Ok(up.remove(0)),
        _ => fail!("several devices are up ({}): choose one with --dev", up.join(", ")),
    }
}

fn set(dev: Option<&str>, port: PortSpec, policy: Policy) -> Outcome<()> {
    let device = device(dev)?;
    let client = Client::connect(&device).context(format!("{device} has no daemon"))?;
    request(&client, port, policy).map_err(|e| Failure::new(format!("{device}: {e}")))
}

/// Asks a daemon to switch a port.
pub(crate) fn request(client: &Client, port: PortSpec, policy: Policy) -> Outcome<()> {
    let request = Request::new(Op::PortSet, [port.proto as u64, u64::from(port.port), policy as u64, 0]);
    let reply = client.call(&request, &mut FdSet::default()).context("the daemon does not answer")?;
    if reply.status != 0 {
        return Err(Failure::new(reply.text()));
    }
    Ok(())
}

fn list(dev: Option<&str>) -> Outcome<()> {
    let devices = match dev {
        Some(name) => vec![name.to_owned()],
        None => state::devices(),
    };
    if devices.is_empty() {
        fail!("no daemon is up here (sidestep up DEV starts one)");
    }
    print(format_args!(
        "{:<16} {:<10} {:<9} {:>6} {:>11} {:>6}",
        "DEVICE", "PORT", "POLICY", "STACKS", "CONNECTIONS", "KERNEL"
    ));
    for name in devices {
        let client = Client::connect(&name).context(format!("{name} has no daemon"))?;
        for p in Snapshot::ask(&client)?.ports {
            let port = format!("{}/{}", p.port, p.proto);
            print(format_args!(
                "{name:<16} {port:<10} {:<9} {:>6} {:>11} {:>6}",
                p.policy, p.members, p.connections, p.in_kernel
            ));
        }
    }
    Ok(())
}
