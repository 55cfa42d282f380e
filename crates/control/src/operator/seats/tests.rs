use super::*;

const NOW: Duration = Duration::from_secs(100);

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn is_given_up(seat: &Seat) -> bool {
    seat.state.given_up.is_cancelled()
}

#[test]
fn a_newcomer_displaces_the_oldest_that_has_not_said_who_it_is() {
    let seats = Seats::new(3, 3);
    let take = || seats.take(None, NOW).unwrap();
    let (known, old, young) = (take(), take(), take());
    known.set(Standing::Known, NOW);
    let newcomer = take();
    assert!(is_given_up(&old) && !is_given_up(&known) && !is_given_up(&young));
    assert_eq!(seats.taken(), 3);
    young.set(Standing::Busy, NOW);
    newcomer.set(Standing::Busy, NOW);
    let _last = take();
    assert!(is_given_up(&known) && !is_given_up(&young) && !is_given_up(&newcomer));
}

#[test]
fn who_says_nothing_makes_room_before_anybody_who_speaks() {
    let seats = Seats::new(3, 3);
    let take = || seats.take(None, NOW).unwrap();
    let (speaking, silent, last) = (take(), take(), take());
    speaking.set(Standing::Speaking, NOW);
    let _newcomer = take();
    assert!(is_given_up(&silent) && !is_given_up(&speaking) && !is_given_up(&last));
}

#[test]
fn of_those_that_speak_the_oldest_makes_room_and_a_known_one_does_not() {
    let seats = Seats::new(3, 3);
    let take = || seats.take(None, NOW).unwrap();
    let (known, old, young) = (take(), take(), take());
    known.set(Standing::Known, NOW);
    old.set(Standing::Speaking, NOW);
    young.set(Standing::Speaking, NOW);
    let newcomer = take();
    assert!(is_given_up(&old) && !is_given_up(&young) && !is_given_up(&known));
    assert!(!is_given_up(&newcomer));
}

#[test]
fn many_addresses_of_one_network_are_one_caller() {
    let seats = Seats::new(512, 128);
    let other = seats.take(address("192.0.2.200"), NOW).unwrap();
    other.set(Standing::Speaking, NOW);
    let flood = (0..2000).map(|n| {
        let seat = seats.take(address(&format!("198.51.100.{}", n % 250)), NOW);
        let seat = seat.unwrap();
        seat.set(Standing::Speaking, NOW);
        seat
    });
    let flood: Vec<_> = flood.collect();
    assert_eq!(seats.taken(), 1 + 128);
    assert!(!is_given_up(&other) && is_given_up(&flood[0]));
}

#[test]
fn who_is_being_served_is_never_displaced() {
    let seats = Seats::new(2, 2);
    let busy: Vec<_> = (0..2).map(|_| seats.take(None, NOW).unwrap()).collect();
    busy.iter().for_each(|seat| seat.set(Standing::Busy, NOW));
    assert!(seats.take(None, NOW).is_none());
    drop(busy);
    assert!(seats.take(None, NOW).is_some());
    assert_eq!(seats.taken(), 0);
}

#[test]
fn one_network_displaces_its_own_and_nobody_elses() {
    let seats = Seats::new(10, 2);
    let other = seats.take(address("2001:db8:0:1::1"), NOW).unwrap();
    let first = seats.take(address("2001:db8::1"), NOW).unwrap();
    let second = seats.take(address("2001:db8::2"), NOW).unwrap();
    let third = seats.take(address("2001:db8::3"), NOW).unwrap();
    assert!(is_given_up(&first) && !is_given_up(&second) && !is_given_up(&other));
    for seat in [&second, &third] {
        seat.set(Standing::Busy, NOW);
    }
    assert!(seats.take(address("2001:db8::4"), NOW).is_none());
    assert!(seats.take(address("192.0.2.1"), NOW).is_some());
}

#[test]
fn who_takes_too_long_is_given_up_unless_it_is_being_served() {
    let seats = Seats::new(10, 10);
    let take = || seats.take(None, NOW).unwrap();
    let (fresh, known, busy) = (take(), take(), take());
    known.set(Standing::Known, NOW);
    busy.set(Standing::Busy, NOW);
    seats.sweep(NOW + FRESH_FOR);
    assert!(!is_given_up(&fresh));
    seats.sweep(NOW + FRESH_FOR + Duration::from_secs(1));
    assert!(is_given_up(&fresh) && !is_given_up(&known));
    seats.sweep(NOW + Duration::from_secs(3600));
    assert!(is_given_up(&known) && !is_given_up(&busy));
}
