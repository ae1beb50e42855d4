//! Who has a seat at a published port, and who keeps whom out.

use super::*;
use crate::patience::eventually;

/// Connects this many times, and says nothing.
fn crowd(count: usize) -> Vec<TcpStream> {
    // Clients, proxy and server are one process here; the proxy alone has enough in a usual limit.
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).unwrap();
    let connect = |_| connect("127.0.0.1:8080").unwrap();
    (0..count).map(connect).collect()
}

/// How many were greeted, and have a connection still.
fn served(crowd: &[TcpStream]) -> usize {
    let is_served = |stream: &&TcpStream| {
        let mut fds = [PollFd::new(*stream, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap();
        fds[0].revents() == PollFlags::IN
    };
    crowd.iter().filter(is_served).count()
}

/// How many have a connection still, or wait for a seat.
fn left(crowd: &[TcpStream]) -> usize {
    let is_left = |stream: &&TcpStream| {
        let mut fds = [PollFd::new(*stream, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap();
        !fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    };
    crowd.iter().filter(is_left).count()
}

/// Waits until this many are served, and tells how many are.
fn soon_served(crowd: &[TcpStream], expected: usize) -> usize {
    let deadline = Instant::now() + long();
    while served(crowd) != expected && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    served(crowd)
}

#[test]
fn idle_clients_of_one_user_keep_nobody_out() {
    let name = "net::port_tests::seats::idle_clients_of_one_user_keep_nobody_out";
    isolated(name, || {
        let world = world(&["8080:80"]);
        with_ipv6(&world);
        let idle = crowd(300);
        assert_eq!(soon_served(&idle, 256), 256);
        // Another user of this host, at the same address, and somebody elsewhere.
        let seen = as_user(1234, || seen_by("127.0.0.1:8080"));
        assert_eq!(seen, "10.107.0.1");
        world
            .outside
            .run(|| assert_eq!(seen_by("[2001:db8::2]:8080"), "10.107.0.1"));
        // Two have made way, and two of those who wait got those seats when they were free again. (On a slow host those who
        // have waited for long have had the seats of their own user by now, and are fewer than there are seats.)
        eventually("who waits has a free seat", || {
            served(&idle) == left(&idle).min(256)
        });
        assert!(served(&idle) >= 254);
        // If the other user wants many, both have a half.
        let others = as_user(1234, || crowd(200));
        assert_eq!(soon_served(&others, 128), 128);
        assert_eq!(soon_served(&idle, 128), 128);
        // Who ends makes room.
        drop(idle);
        let more = as_user(1234, || crowd(32));
        assert_eq!(soon_served(&more, 32), 32);
    });
}

#[test]
fn clients_that_have_closed_keep_nobody_out() {
    let name = "net::port_tests::seats::clients_that_have_closed_keep_nobody_out";
    isolated(name, || {
        let world = world(&["8080:80", "8091:91"]);
        // Of a guest that accepts nobody.
        let deaf = world.guest.run(|| TcpListener::bind("0.0.0.0:91").unwrap());
        rustix::net::listen(&deaf, 1024).unwrap();
        as_user(1234, || {
            for _ in 0..320 {
                drop(connect("127.0.0.1:8091").unwrap());
            }
        });
        // Root, for whom they must not count.
        let since = Instant::now();
        assert_eq!(seen_by("127.0.0.1:8080"), "10.107.0.1");
        assert!(since.elapsed() < seconds(5), "{:?}", since.elapsed());
    });
}

#[test]
fn clients_beyond_the_bound_wait_for_a_seat() {
    let name = "net::port_tests::seats::clients_beyond_the_bound_wait_for_a_seat";
    isolated(name, || {
        let _world = world(&["8080:80"]);
        let mut clients = crowd(300);
        assert_eq!(soon_served(&clients, 256), 256);
        // Those that were silent for long make way for their owner's new ones.
        assert_eq!(soon_served(&clients[256..], 44), 44);
        assert_eq!(soon_served(&clients, 256), 256);
        let more = crowd(44);
        clients.drain(..100);
        assert_eq!(soon_served(&more, 44), 44);
    });
}

#[test]
fn slow_clients_hold_nobody_up() {
    let name = "net::port_tests::seats::slow_clients_hold_nobody_up";
    isolated(name, || {
        let _world = world(&["8080:80"]);
        // Some ask for a lot and do not read it; others say a byte now and then.
        let mut greedy = crowd(10);
        for stream in &mut greedy {
            stream.set_nonblocking(true).unwrap();
            let bytes = vec![7; 1 << 20];
            while stream.write(&bytes).is_ok() {}
        }
        let mut slow = crowd(240);
        // What the greedy ones have sent is under way no more.
        std::thread::sleep(Duration::from_secs(1));
        let rounds = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                for _ in 0..5 {
                    let mut greeting = [0; 11];
                    let mut stream = as_user(1234, || connect("127.0.0.1:8080").unwrap());
                    stream.read_exact(&mut greeting).unwrap();
                    assert_eq!(&greeting, b"10.107.0.1\n");
                }
            });
            let mut rounds = 0;
            while !other.is_finished() {
                let begun = Instant::now();
                for stream in &mut slow {
                    let _ = stream.write(b"x");
                }
                rounds += 1;
                // Half the time at the most, on a host where it takes long.
                std::thread::sleep(begun.elapsed().max(Duration::from_millis(10)));
            }
            other.join().unwrap();
            rounds
        });
        assert!(rounds > 0);
        // What was asked for is there, once it is read.
        let stream = &mut greedy[0];
        stream.set_nonblocking(false).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received.len() > 1 << 20, "{}", received.len());
        assert!(received[11..].iter().all(|byte| *byte == 7));
    });
}
