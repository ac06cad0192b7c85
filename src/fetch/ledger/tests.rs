use super::*;

fn of(host: &str, owner: &str) -> Payer {
    Payer::new(host, host, owner, "")
}

/// Serves whoever had the least, a turn of these seconds each, and returns how often each was served.
fn shares(payers: &[Payer], turns: usize, now: Instant) -> Vec<usize> {
    let mut book = Book::default();
    let mut served = vec![0; payers.len()];
    for _ in 0..turns {
        let next = (0..payers.len()).min_by_key(|at| book.order(&payers[*at], now));
        let next = next.unwrap();
        book.begin(&payers[next], now);
        book.charge(&payers[next], 3.0, now);
        served[next] += 1;
    }
    served
}

#[test]
fn hosts_share_among_each_other_and_owners_within_theirs() {
    let payers = [
        of("a", "mallory"),
        of("a", "alice"),
        of("b", "bob"),
        Payer::new("", "x", "eve", ""),
        Payer::new("", "y", "eve", ""),
    ];
    let served = shares(&payers, 60, Instant::now());
    assert_eq!(served, [10, 10, 20, 10, 10]);
}

#[test]
fn whoever_comes_is_a_little_ahead_and_saves_nothing_up() {
    let now = Instant::now();
    let (mut book, busy, idle) = (Book::default(), of("a", "x"), of("b", "y"));
    for _ in 0..20 {
        book.begin(&busy, now);
        book.charge(&busy, 3.0, now);
    }
    let ahead = book.used(&busy, now)[0] - book.used(&idle, now)[0];
    assert!((ahead - CREDIT - 3.0).abs() < NOTHING, "{ahead}");
    book.charge(&idle, CREDIT + 3.0, now);
    assert!(book.used(&busy, now)[0] - book.used(&idle, now)[0] < NOTHING);
    // Half of it is forgotten each minute.
    let later = now + Duration::from_mins(2);
    assert!((book.used(&busy, later)[0] - 15.0).abs() < NOTHING);
    let much_later = now + Duration::from_mins(100);
    assert!(book.used(&busy, much_later)[0] < NOTHING);
}

#[test]
fn a_place_is_left_to_those_that_had_less() {
    let ledger = Arc::new(Ledger::default());
    let (first, second) = (of("a", "x"), of("b", "y"));
    ledger.charge(&first, 20.0);
    ledger.charge(&second, 10.0);
    let turn = ledger.begin(&first);
    assert_eq!(turn.pressed(), Pressed::No);
    let equal = ledger.wait(&first);
    assert_eq!(turn.pressed(), Pressed::ByEquals);
    let less = ledger.wait(&second);
    assert_eq!(turn.pressed(), Pressed::ByMuchLess);
    assert!(ledger.is_for_others(&first) && !ledger.is_for_others(&second));
    drop((less, equal, turn));
    assert_eq!(ledger.waiting(), 0);
    // One that had less keeps the place while that is so, and what it had then counts.
    let turn = ledger.begin(&second);
    ledger.tell([first.clone(), first.clone()]);
    assert_eq!(turn.pressed(), Pressed::No);
    ledger.charge(&second, 4.0);
    assert_eq!(turn.pressed(), Pressed::No);
    ledger.charge(&second, 4.0);
    assert_eq!(turn.pressed(), Pressed::ByLess);
    ledger.tell([]);
    assert_eq!(turn.pressed(), Pressed::No);
}

#[test]
fn new_pushes_of_a_host_are_no_new_hosts() {
    let ledger = Arc::new(Ledger::default());
    ledger.charge(&of("a", "mallory"), 3.0);
    let turn = ledger.begin(&of("b", "bob"));
    // However many come, and of whom.
    ledger.tell((0..100).map(|n| of("a", &n.to_string())));
    assert_eq!(turn.pressed(), Pressed::No);
    ledger.tell([of("c", "carol")]);
    ledger.charge(&of("b", "bob"), 1.0);
    assert_eq!(turn.pressed(), Pressed::ByLess);
}

#[test]
fn repositories_of_an_owner_take_turns_and_do_not_press_each_other() {
    let ledger = Arc::new(Ledger::default());
    let at = |repository: &str| Payer::new("a", "a", "acme", repository);
    let (busy, quiet) = (at("busy"), at("quiet"));
    ledger.charge(&busy, 3.0);
    let now = Instant::now();
    let used = |payer: &Payer| ledger.used(payer, now);
    assert!(used(&quiet) < used(&busy));
    assert_eq!(used(&quiet).of_owner(), used(&busy).of_owner());
    let turn = ledger.begin(&busy);
    ledger.tell([quiet]);
    assert_eq!(turn.pressed(), Pressed::ByEquals);
    assert!(!ledger.is_for_others(&busy));
}

#[test]
fn what_is_known_is_bounded() {
    let ledger = Ledger::default();
    let now = Instant::now();
    for n in 0..3 * ACCOUNTS_MAX {
        let name = n.to_string();
        let payer = Payer::new("", &name, &name, &name);
        let mut book = ledger.book();
        book.begin(&payer, now);
        book.charge(&payer, 1.0, now);
        assert!(book.accounts.len() <= ACCOUNTS_MAX + 5);
    }
    ledger.tell((0..99).map(|n| of("a", &n.to_string())));
    assert_eq!(ledger.book().told.len(), TOLD_MAX);
}
