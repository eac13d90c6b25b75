//! Faults, done when their time comes.

use super::Sim;
use super::plan::Fault;
use crate::addr::Mac;
use crate::testing::alloc::format;
use crate::testing::link::LinkConfig;

impl Sim {
    pub(super) fn next_fault_at(&self) -> Option<u64> {
        self.plan.faults.get(self.faults_done).map(|(at, _)| self.began.micros() + at)
    }

    pub(super) fn do_faults(&mut self) {
        while self.next_fault_at().is_some_and(|at| at <= self.network.now().micros()) {
            let (_, fault) = self.plan.faults[self.faults_done];
            self.faults_done += 1;
            self.monitor.say(self.network.now(), || format!("** {fault:?}"));
            self.do_fault(fault);
        }
    }

    fn do_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Down { host } => self.set_down(host, true),
            Fault::Up { host } => self.set_down(host, false),
            Fault::Mtu { host, mtu, tells } => {
                let attachment = &mut self.network.attachments[host];
                for link in [&mut attachment.up, &mut attachment.down] {
                    (link.config.mtu, link.config.tells_too_big) = (mtu, tells);
                }
            }
            Fault::Reboot { host } => self.reboot(host),
            Fault::Readdress { host } => {
                let mut mac = self.network.hosts[host].config.mac;
                mac.0[4] = mac.0[4].wrapping_add(1);
                let now = self.network.clock(host);
                self.network.hosts[host].set_mac(now, Mac(mac.0));
            }
            Fault::Introduce => (0..self.network.hosts.len()).for_each(|host| self.network.introduce(host)),
            Fault::Heal => self.heal(),
        }
    }

    fn set_down(&mut self, host: usize, is_down: bool) {
        let attachment = &mut self.network.attachments[host];
        (attachment.up.is_down, attachment.down.is_down) = (is_down, is_down);
    }

    /// Nothing is lost any more; what takes time goes on to take it.
    fn heal(&mut self) {
        for attachment in &mut self.network.attachments {
            for link in [&mut attachment.up, &mut attachment.down] {
                let LinkConfig { delay_us, jitter_us, kbit_per_s, queue_bytes, mark_above_bytes, mtu, .. } =
                    link.config;
                let healed = LinkConfig {
                    delay_us,
                    jitter_us,
                    kbit_per_s,
                    queue_bytes,
                    mark_above_bytes,
                    ..LinkConfig::default()
                };
                link.config = LinkConfig { mtu, tells_too_big: true, ..healed };
            }
        }
    }

    fn reboot(&mut self, host: usize) {
        self.network.reboot(host);
        self.monitor.forget(host);
        for conn in &mut self.conns {
            for end in [&mut conn.client, &mut conn.server].into_iter().flatten() {
                if end.host == host {
                    end.phase = super::end::Phase::Done;
                    end.has_eof = false;
                }
            }
        }
        self.set_up_host(host);
    }
}
