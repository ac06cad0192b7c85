//! Tests of the assignment of places and of the choice of the connections that make room.

use super::*;
use crate::server::connections::pulse::{STEP, Turn};

fn places(most: usize) -> Arc<Places> {
    Places::new(Connections {
        most,
        momentary: MOMENTARY_CONNECTIONS,
        proxies: TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]),
    })
}

fn from(places: &Arc<Places>, peer: &str) -> ConnectionPlace {
    places.admit(peer.parse().unwrap())
}

/// Makes the connection look as if nothing had moved for `millis` milliseconds.
fn idle(place: &ConnectionPlace, millis: u64) {
    place.pulse.was_idle_for(millis);
}

/// Returns places that are old enough for a connection to be idle.
fn old_places(most: usize) -> Arc<Places> {
    let places = places(most);
    let mut places = Arc::into_inner(places).unwrap();
    places.began -= Duration::from_mins(1);
    Arc::new(places)
}

/// Begins a request whose body the client is sending.
fn sends(place: &ConnectionPlace) -> (Turn, Turn) {
    let turn = place.pulse.work();
    (place.pulse.wait_for_client(), turn)
}

/// Returns a connection whose client is sending a body.
fn sending(places: &Arc<Places>, peer: &str) -> (ConnectionPlace, (Turn, Turn)) {
    let place = from(places, peer);
    let turns = sends(&place);
    (place, turns)
}

#[test]
fn the_idlest_goes_first() {
    let places = old_places(3);
    let peers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let [old, older, young] = peers.map(|peer| sending(&places, peer));
    idle(&old.0, 2000);
    idle(&older.0, 3000);
    let newcomer = sending(&places, "192.0.2.4");
    assert!(older.0.close.is_cancelled() && !old.0.close.is_cancelled());
    let another = sending(&places, "192.0.2.5");
    assert!(old.0.close.is_cancelled() && !young.0.close.is_cancelled());
    assert!(!newcomer.0.is_momentary() && !another.0.is_momentary());
    // No connection is idle anymore.
    assert!(from(&places, "192.0.2.6").is_momentary());
    drop((old, older, young));
    assert!(!from(&places, "192.0.2.7").is_momentary());
}

#[test]
fn small_requests_hold_no_place() {
    let places = old_places(4);
    let known = from(&places, "192.0.2.1");
    known.pulse.prove();
    let crowd = [from(&places, "192.0.2.2"), from(&places, "192.0.2.3")];
    let (sending, _turns) = sending(&places, "192.0.2.4");
    assert!(!known.should_end() && crowd[0].should_end());
    for place in &crowd {
        drop(place.pulse.work());
    }
    idle(&crowd[1], 10);
    idle(&known, 900);
    let first = from(&places, "192.0.2.5");
    assert!(crowd[1].close.is_cancelled() && !first.is_momentary());
    let _turn = first.pulse.work();
    let second = from(&places, "192.0.2.6");
    assert!(crowd[0].close.is_cancelled() && !second.is_momentary());
    let _turn = second.pulse.work();
    assert!(!known.close.is_cancelled() && !sending.close.is_cancelled());
    assert!(from(&places, "192.0.2.7").is_momentary());
    idle(&known, 200);
    assert!(!from(&places, "192.0.2.8").is_momentary());
    assert!(known.close.is_cancelled());
}

#[test]
fn whoever_has_many_connections_makes_room_before_whoever_has_few() {
    let places = old_places(12);
    let modest = from(&places, "192.0.2.1");
    let crowd: Vec<_> = (0..3)
        .flat_map(|_| ["192.0.2.2", "192.0.2.3", "192.0.2.4"])
        .map(|peer| from(&places, peer))
        .collect();
    let others = [from(&places, "192.0.2.5"), from(&places, "192.0.2.5")];
    idle(&modest, 500);
    let newcomers = [(); 3].map(|()| sending(&places, "198.51.100.1"));
    assert!(newcomers.iter().all(|(place, _)| !place.is_momentary()));
    assert_eq!(crowd.iter().filter(|p| p.close.is_cancelled()).count(), 3);
    assert!(!modest.close.is_cancelled() && !others[0].close.is_cancelled());
}

#[tokio::test]
async fn whoever_waits_gets_the_place_of_whoever_idles() {
    let places = old_places(1);
    let (first, turns) = sending(&places, "192.0.2.1");
    let second = from(&places, "192.0.2.2");
    assert!(second.is_momentary());
    assert!(!second.promoted(Duration::ZERO).await);
    idle(&first, 950);
    assert!(second.promoted(Duration::from_mins(1)).await);
    assert!(!second.is_momentary() && first.close.is_cancelled());
    drop((first, turns, second));
    let state = places.lock();
    assert!(state.ordinary == 0 && state.taken.is_empty() && state.clients.is_empty());
}

#[tokio::test]
async fn whoever_has_to_go_while_waiting_is_told_so_at_once() {
    let places = old_places(1);
    let busy = from(&places, "192.0.2.1");
    let _turn = busy.pulse.work();
    let waiting = from(&places, "192.0.2.2");
    let _crowd: Vec<_> = (0..MOMENTARY_CONNECTIONS)
        .map(|_| from(&places, "192.0.2.3"))
        .collect();
    assert!(waiting.close.is_cancelled());
    assert!(!waiting.promoted(Duration::from_hours(1)).await);
}

#[test]
fn whoever_is_being_served_stays() {
    let places = old_places(1);
    let busy = from(&places, "192.0.2.1");
    let turn = busy.pulse.work();
    idle(&busy, 5000);
    assert!(from(&places, "192.0.2.2").is_momentary());
    // A body that does not arrive is the client's fault, however often a byte of it does.
    let waits = busy.pulse.wait_for_client();
    for _ in 0..100 {
        busy.pulse.moved(1);
    }
    assert!(!from(&places, "192.0.2.2").is_momentary());
    assert!(busy.close.is_cancelled());
    drop((waits, turn));
}

#[test]
fn whoever_moves_on_stays() {
    let places = old_places(1);
    let (reader, _turns) = sending(&places, "192.0.2.1");
    idle(&reader, 5000);
    reader.pulse.moved(STEP);
    assert!(from(&places, "192.0.2.2").is_momentary());
    assert!(!reader.close.is_cancelled());
}

#[test]
fn one_client_has_a_quarter_and_no_more() {
    let places = old_places(40);
    let mut mine: Vec<_> = (0..10).map(|_| sending(&places, "192.0.2.1")).collect();
    assert!(mine.iter().all(|(place, _)| !place.is_momentary()));
    assert!(from(&places, "192.0.2.1").is_momentary());
    assert!(from(&places, "::ffff:192.0.2.1").is_momentary());
    assert!(!from(&places, "192.0.2.2").is_momentary());
    idle(&mine[3].0, 2000);
    mine.push(sending(&places, "192.0.2.1"));
    assert!(mine[3].0.close.is_cancelled() && !mine[10].0.is_momentary());
    // A subscriber's network is one client; proxies and the machine itself are many.
    let v6: Vec<_> = (0..11)
        .map(|n| sending(&places, &format!("2001:db8::{n}")))
        .collect();
    assert!(v6[10].0.is_momentary() && !v6[9].0.is_momentary());
}

#[test]
fn proxies_and_the_machine_itself_are_many_clients() {
    for peer in ["10.1.2.3", "127.0.0.1", "::1", "::ffff:10.1.2.3"] {
        let places = old_places(40);
        let mine: Vec<_> = (0..40).map(|_| from(&places, peer)).collect();
        assert!(mine.iter().all(|place| !place.is_momentary()), "{peer}");
    }
}

#[test]
fn the_greediest_makes_room_when_nobody_is_idle() {
    let places = old_places(60);
    let crowd: Vec<_> = (0..4)
        .flat_map(|n| (0..15).map(move |_| format!("192.0.2.{n}")))
        .map(|peer| sending(&places, &peer))
        .collect();
    assert!(crowd.iter().all(|(place, _)| !place.is_momentary()));
    let modest = from(&places, "198.51.100.1");
    assert!(!modest.is_momentary());
    let gone = crowd.iter().filter(|(p, _)| p.close.is_cancelled());
    assert_eq!(gone.count(), 1);
}

#[test]
fn places_for_a_moment_are_never_used_up() {
    let places = old_places(1);
    let _busy = sending(&places, "192.0.2.1");
    let crowd: Vec<_> = (0..MOMENTARY_CONNECTIONS)
        .map(|_| from(&places, "192.0.2.2"))
        .collect();
    assert!(crowd.iter().all(|place| !place.close.is_cancelled()));
    let probe = from(&places, "127.0.0.1");
    assert!(probe.is_momentary() && !probe.close.is_cancelled());
    assert!(crowd[0].close.is_cancelled() && !crowd[1].close.is_cancelled());
}

/// Makes the connection look as if it had been there for `millis` milliseconds.
fn aged(place: &ConnectionPlace, millis: u64) {
    idle(place, millis);
    let mut state = place.places.lock();
    let taken = state.taken.get_mut(&place.id);
    taken.unwrap().since -= millis;
}

/// Returns an idle connection that has proved itself.
fn proved(places: &Arc<Places>, peer: &str, millis: u64) -> ConnectionPlace {
    let place = from(places, peer);
    place.pulse.prove();
    drop(place.pulse.work());
    idle(&place, millis);
    place
}

#[test]
fn whoever_has_just_connected_is_not_thrown_out_for_the_next_one() {
    let places = old_places(32);
    let known: Vec<_> = (0..32)
        .map(|n| proved(&places, &format!("192.0.2.{n}"), 2000 + n))
        .collect();
    let newcomers: Vec<_> = (0..16)
        .map(|n| from(&places, &format!("198.51.100.{n}")))
        .collect();
    let gone = |known: &[ConnectionPlace]| known.iter().filter(|p| p.close.is_cancelled()).count();
    assert!(newcomers.iter().all(|place| !place.close.is_cancelled()));
    assert_eq!(gone(&known), 16);
    assert!(known[31].close.is_cancelled() && !known[0].close.is_cancelled());
    // More of them are a flood, and make room for one another.
    let flood: Vec<_> = (0..4)
        .map(|n| from(&places, &format!("203.0.113.{n}")))
        .collect();
    assert_eq!(gone(&known), 17);
    assert!(newcomers[0].close.is_cancelled() && !flood[3].close.is_cancelled());
    // The connection that has sent nothing for long goes first.
    let last = newcomers.last().unwrap();
    assert!(!last.close.is_cancelled());
    aged(last, 2500);
    let _next = from(&places, "203.0.113.9");
    assert!(last.close.is_cancelled());
    assert_eq!(gone(&known), 17);
}

#[test]
fn whoever_was_served_a_moment_ago_goes_before_whoever_was_not_yet() {
    let places = old_places(4);
    let served = [
        proved(&places, "192.0.2.1", 300),
        proved(&places, "192.0.2.2", 200),
        proved(&places, "192.0.2.3", 0),
    ];
    let young = from(&places, "192.0.2.4");
    let _next = sending(&places, "192.0.2.5");
    assert!(served[0].close.is_cancelled() && !young.close.is_cancelled());
    let _another = sending(&places, "192.0.2.6");
    assert!(served[1].close.is_cancelled() && !young.close.is_cancelled());
    let _third = sending(&places, "192.0.2.7");
    assert!(young.close.is_cancelled() && !served[2].close.is_cancelled());
}

#[test]
fn to_be_proved_protects_a_few_connections_and_not_many() {
    let places = old_places(24);
    let few = [
        proved(&places, "192.0.2.1", 9000),
        proved(&places, "192.0.2.1", 9000),
    ];
    let peers = |peer: &'static str, count: usize| std::iter::repeat_n(peer, count);
    let mine = peers("192.0.2.2", 5).chain(peers("192.0.2.3", 4));
    let mut many: Vec<_> = mine.map(|peer| proved(&places, peer, 1500)).collect();
    // A proxy's connections are counted, too, but a request in flight over one of them is not cut off.
    many.extend(peers("10.1.2.3", 8).map(|peer| proved(&places, peer, 1500)));
    let (live, _turns) = sending(&places, "10.1.2.3");
    live.pulse.prove();
    idle(&live, 1500);
    let _rest: Vec<_> = (0..4)
        .map(|n| sending(&places, &format!("198.51.100.{n}")))
        .collect();
    let newcomers: Vec<_> = (0..12)
        .map(|n| sending(&places, &format!("203.0.113.{n}")))
        .collect();
    assert!(newcomers.iter().all(|(place, _)| !place.is_momentary()));
    let left = |peers: &[ConnectionPlace]| peers.iter().filter(|p| !p.close.is_cancelled()).count();
    let (counted, of_proxy) = many.split_at(9);
    assert_eq!(left(&counted[..5]), 2);
    assert_eq!(left(&counted[5..]), 2);
    assert_eq!(left(of_proxy), 1, "and the live one");
    assert_eq!(left(&few), 2);
    assert!(!live.close.is_cancelled());
}
