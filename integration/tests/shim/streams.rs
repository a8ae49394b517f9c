//! Standard streams, with readers that are slow, late, or not there.

use crate::{fifo, id, reader, sleeping};
use orlop_integration::shim::{Host, Stdio3};
use orlop_integration::wait;
use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[crate::Test] = crate::tests![
    a_grandchild_keeps_the_pipe,
    an_exec_that_nobody_reads_is_deleted,
    an_end_is_told_when_its_output_was_read,
    bulk_output_to_a_slow_reader,
    many_outputs_at_once,
];

/// The end of a process is the end of its output, although another process has the pipe.
fn a_grandchild_keeps_the_pipe(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let out = fifo(&host.file("grandchild-out"));
    let read = reader(out.clone(), Duration::ZERO);
    let io = Stdio3 { stdout: out, ..Stdio3::default() };
    shim.exec(&bundle.id, "e", &["sh", "-c", "sleep 1000 & echo done"], &io).expect("exec");
    let began = Instant::now();
    shim.start(&bundle.id, "e").expect("start");
    assert_eq!(shim.wait(&bundle.id, "e").expect("wait"), 0);
    shim.delete(&bundle.id, "e").expect("delete");
    assert_eq!(read.join().expect("no panic"), b"done\n");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    shim.remove(&bundle.id);
}

/// containerd 11133: delete does not hang because nobody reads what was written.
fn an_exec_that_nobody_reads_is_deleted(host: &Host) {
    let (bundle, shim) = sleeping(host);
    let out = fifo(&host.file("unread"));
    // There, but not reading.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&out).expect("our fifo");
    let io = Stdio3 { stdout: out, ..Stdio3::default() };
    shim.exec(&bundle.id, "e", &["dd", "if=/dev/zero", "bs=4096", "count=20"], &io).expect("exec");
    shim.start(&bundle.id, "e").expect("start");
    assert_eq!(shim.wait(&bundle.id, "e").expect("wait"), 0);
    let began = Instant::now();
    shim.delete(&bundle.id, "e").expect("delete");
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    shim.remove(&bundle.id);
}

/// containerd 1.6 closes the log of a container whose end it knows, whatever is still in the fifo. One that does not read delays it by a second.
fn an_end_is_told_when_its_output_was_read(host: &Host) {
    let patience = Duration::from_secs(1);
    for reads in [false, true] {
        let bundle = host.bundle(&id(), &["echo", "x"]);
        let shim = host.start(&bundle);
        let out = fifo(&host.file(&format!("told-{reads}")));
        let mut reader = fs::OpenOptions::new().read(true).write(true).open(&out).expect("our fifo");
        let began = Instant::now();
        shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
        if reads {
            reader.read_exact(&mut [0; 2]).expect("our fifo");
        }
        let exit = || host.exit_of(&bundle.id, &bundle.id);
        wait::until("the end is told", wait::SOON, exit);
        assert!(reads || began.elapsed() >= patience, "told after {:?}, and nobody has read", began.elapsed());
        assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 0);
        shim.delete(&bundle.id, "").expect("delete");
        shim.shutdown();
    }
}

fn bulk_output_to_a_slow_reader(host: &Host) {
    const PIECES: usize = 1200;
    let bundle = host.bundle(&id(), &["dd", "if=/dev/zero", "bs=4096", &format!("count={PIECES}")]);
    let shim = host.start(&bundle);
    let out = fifo(&host.file("bulk"));
    let read = reader(out.clone(), Duration::from_millis(2));
    shim.run(&bundle, &Stdio3 { stdout: out, ..Stdio3::default() });
    assert_eq!(shim.wait(&bundle.id, "").expect("wait"), 0);
    assert_eq!(shim.delete(&bundle.id, "").expect("delete"), 0);
    assert_eq!(read.join().expect("no panic").len(), PIECES * 4096);
    shim.shutdown();
}

fn many_outputs_at_once(host: &Host) {
    let (bundle, shim) = sleeping(host);
    thread::scope(|scope| {
        for lane in 0..8 {
            let (shim, bundle) = (&shim, &bundle);
            scope.spawn(move || {
                for n in 0..15 {
                    let exec = format!("e{lane}-{n}");
                    let (out, err) =
                        (fifo(&host.file(&format!("{exec}-out"))), fifo(&host.file(&format!("{exec}-err"))));
                    let reads = [&out, &err].map(|path| reader(path.clone(), Duration::ZERO));
                    let script = format!(
                        "i=0; while [ $i -lt 300 ]; do echo out {exec} $i; echo err {exec} $i >&2; i=$((i+1)); done"
                    );
                    let io = Stdio3 { stdout: out, stderr: err, ..Stdio3::default() };
                    shim.exec(&bundle.id, &exec, &["sh", "-c", &script], &io).expect("exec");
                    shim.start(&bundle.id, &exec).expect("start");
                    assert_eq!(shim.wait(&bundle.id, &exec).expect("wait"), 0);
                    shim.delete(&bundle.id, &exec).expect("delete");
                    for (name, read) in ["out", "err"].into_iter().zip(reads) {
                        let expected: String = (0..300).map(|i| format!("{name} {exec} {i}\n")).collect();
                        assert_eq!(String::from_utf8_lossy(&read.join().expect("no panic")), expected);
                    }
                }
            });
        }
    });
    shim.remove(&bundle.id);
}
