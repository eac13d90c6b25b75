//! The runner itself: scripts that have to fail do, at their line, and say what came.

use crate::{run, script};

/// Line and message of the failure of a script.
fn failure_of(text: &str) -> (usize, String) {
    let cases = script::cases_in("inline", text).expect("the script can be read");
    match run::run(&cases[0], false) {
        Err(failure) => (failure.line.number, failure.to_string()),
        Ok(()) => panic!("passed:\n{text}"),
    }
}

/// A handshake that is right, and then these lines, from line 5 on.
fn after_handshake(lines: &str) -> (usize, String) {
    failure_of(&format!("listen 80\n< S seq 0 <mss 1000>\n> SA seq 0 ack 1\n< A seq 1 ack 1\naccept\n{lines}"))
}

fn assert_fails(lines: &str, at: usize, says: &str) {
    let (line, message) = after_handshake(lines);
    assert!(line == at && message.contains(says), "line {line}, wanted {at} and \"{says}\":\n{message}");
}

#[test]
fn wrong_fields_are_seen() {
    assert_fails("write 10\n> PA seq 1 len 10 ack 2", 7, "wrong: ack");
    assert_fails("write 10\n> PA seq 2 len 10 ack 1", 7, "wrong: seq");
    assert_fails("write 10\n> PA seq 1 len 11 ack 1", 7, "wrong: len");
    assert_fails("write 10\n> FA seq 1 len 10 ack 1", 7, "wrong: flags");
    assert_fails("write 10\n> A seq 1 len 10 ack 1 win 1", 7, "wrong: win");
    assert_fails("write 10\n> A seq 1 len 10 ack 1 ect0", 7, "ECN");
    assert_fails("write 10\n> A seq 1 len 10 ack 1 <ts>", 7, "option");
    assert_fails("write 10\nflow 2\n> A seq 1 len 10 ack 1", 7, "before it came");
}

#[test]
fn wrong_flow_and_wrong_option_are_seen() {
    let (line, message) = failure_of("listen 80\nflow 2\n< S seq 0 <mss 1000>\nflow 1\n> SA seq 0 ack 1");
    assert!(line == 4 && message.contains("nothing asked for it"), "{message}");
    let (line, message) = failure_of("listen 80\n< S seq 0 <mss 1000>\n> SA seq 0 ack 1 <no mss>");
    assert!(line == 3 && message.contains("Absent"), "{message}");
    let (line, message) = failure_of("listen 80\n< S seq 0 <mss 1000>\n> SA seq 0 ack 1 <mss 1000>");
    assert!(line == 3 && message.contains("Mss(1000)"), "{message}");
}

#[test]
fn missing_and_extra_segments_are_seen() {
    assert_fails("> A seq 1 ack 1", 6, "nothing came");
    assert_fails("write 10", 6, "nothing asked for it");
    assert_fails("write 10\n> PA seq 1 len 10 ack 1\nsilence 1s", 8, "nothing asked for it");
    assert_fails("write 10\n> PA seq 1 len 10 ack 1\n+1s < A seq 1 ack 11", 8, "nothing asked for it");
}

#[test]
fn wrong_times_are_seen() {
    assert_fails("< PA seq 1 len 10 ack 1\n> A seq 1 ack 11", 7, "nothing came");
    assert_fails("write 10\n> PA seq 1 len 10 ack 1\n+1s~10ms > PA seq 1 len 10 ack 1", 8, "too early");
    assert_fails("write 10\n> PA seq 1 len 10 ack 1\n+10ms > PA seq 1 len 10 ack 1", 8, "nothing came");
}

#[test]
fn wrong_outcomes_and_expectations_are_seen() {
    assert_fails("read 10", 6, "EAGAIN");
    assert_fails("write 10 = EPIPE", 6, "gave 10");
    assert_fails("expect state CLOSE-WAIT", 6, "ESTABLISHED");
    assert_fails("expect poll in out", 6, "out");
    assert_fails("expect drop OutsideWindow 1", 6, "is 0, not 1");
    assert_fails("expect counter accepts 2", 6, "is 1, not 2");
    assert_fails("expect info snd_mss 1001", 6, "is 1000");
    assert_fails("expect info snd_mss > 1000", 6, "not > 1000");
    assert_fails("setsockopt keepalive 1\nexpect idle", 7, "a timer");
}

#[test]
fn forged_payload_is_seen_by_the_reader() {
    assert_fails("< PA seq 1 len 10 ack 1 garbage\nread 10", 7, "octet 0");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, says) in [
        ("listen", "missing"),
        ("frobnicate", "no such call"),
        ("< X seq 0", "flags are"),
        ("< A seq 0", "belong together"),
        ("< S", "need a seq"),
        ("< S seq rcv", "neither a number"),
        ("< S seq 0 <frob 1>", "no option"),
        ("+10 < S seq 0", "has a unit"),
        ("expect nonsense", "nothing a script can ask"),
        ("expect drop Nonsense 1", "no such drop"),
        ("tunable nonsense 1", "no tunable"),
    ] {
        let (_, message) = failure_of(line);
        assert!(message.contains(says), "{line}: {message}");
    }
    assert!(script::cases_in("x", "use NOWHERE").is_err());
    assert!(script::cases_in("x", "in LISTEN\nin LISTEN\nclose").is_err());
}
