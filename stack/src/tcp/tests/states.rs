//! The transition table, whole: a change to it shows up as a change of this text.

use crate::tcp::State;
use crate::tcp::state::Event;

const STATES: [State; 10] = [
    State::Closed,
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::Closing,
    State::CloseWait,
    State::LastAck,
    State::TimeWait,
];
const EVENTS: [Event; 5] = [Event::SynCrossed, Event::Synchronized, Event::Close, Event::OurFinAcked, Event::PeerFin];

#[test]
fn every_state_and_event() {
    let mut table = String::new();
    for state in STATES {
        for event in EVENTS {
            table += &format!("{state:?} + {event:?} = {:?}\n", state.after(event));
        }
    }
    let committed = include_str!("states.snapshot");
    assert!(table == committed, "the table changed; if that is meant, tests/states.snapshot becomes:\n{table}");
}

#[test]
fn nothing_leaves_closed_or_time_wait() {
    for event in EVENTS {
        assert_eq!(State::Closed.after(event), State::Closed);
        assert_eq!(State::TimeWait.after(event), State::TimeWait);
    }
}

#[test]
fn the_order_of_fins_does_not_matter_where_both_are_done() {
    use Event::*;
    let run = |events: &[Event]| events.iter().fold(State::Established, |s, &e| s.after(e));
    assert_eq!(run(&[Close, OurFinAcked, PeerFin]), State::TimeWait);
    assert_eq!(run(&[Close, PeerFin, OurFinAcked]), State::TimeWait);
    assert_eq!(run(&[PeerFin, Close, OurFinAcked]), State::Closed);
}
