//! Publishes as fast as a broker acknowledges: `mqtt_load ADDRESS [CLIENTS] [IN_FLIGHT] [SECONDS] [BYTES] [QOS]`, with 3.1.1.
//!
//! Every client keeps that many QoS 1 (or 2) messages open. With QoS 0, it ends with a ping that has to be answered. Prints
//! one line: messages per second, all clients together, the median and 99th percentile of the time to an acknowledgement, and
//! how many messages there were.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn argument(at: usize, default: u64) -> u64 {
    std::env::args().nth(at).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::main]
#[allow(clippy::print_stdout)]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).expect("mqtt_load ADDRESS [CLIENTS] [IN_FLIGHT] [SECONDS] [BYTES] [QOS]");
    let (clients, in_flight, seconds) = (argument(2, 50), argument(3, 20), argument(4, 5));
    let (bytes, qos) = (argument(5, 256), argument(6, 1));
    let until = Instant::now() + Duration::from_secs(seconds);
    let since = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|n| tokio::spawn(client(address.clone(), n, in_flight as u16, bytes as usize, qos as u8, until)))
        .collect();
    let (mut total, mut times) = (0, Vec::new());
    for task in tasks {
        let (sent, mut took) = task.await??;
        total += sent;
        times.append(&mut took);
    }
    let rate = total as f64 / since.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
    let ms = |part| at(part).as_secs_f64() * 1e3;
    println!("{rate:.0} messages/s, p50 {:.3} ms, p99 {:.3} ms, {total} in all", ms(0.5), ms(0.99));
    Ok(())
}

async fn client(
    address: String,
    number: u64,
    in_flight: u16,
    bytes: usize,
    qos: u8,
    until: Instant,
) -> anyhow::Result<(u64, Vec<Duration>)> {
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let name = format!("load-{number}");
    let mut hello = vec![0x10, 12 + name.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, name.len() as u8];
    hello.extend_from_slice(name.as_bytes());
    stream.write_all(&hello).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(answer == [0x20, 2, 0, 0], "not accepted: {answer:?}");
    let topic = format!("captured/{number}");
    let (mut write, mut read) = (Vec::new(), vec![0; 64 << 10]);
    let (mut sent, mut done, mut have) = (0_u64, 0_u64, 0);
    let mut began = vec![Instant::now(); 65_536];
    let mut took = Vec::new();
    loop {
        write.clear();
        while Instant::now() < until && (qos == 0 || sent - done < u64::from(in_flight)) && write.len() < 64 << 10 {
            sent += 1;
            let packet = (sent % 65_535) as u16 + 1;
            publish(&mut write, &topic, bytes, qos, packet);
            began[usize::from(packet)] = Instant::now();
        }
        let over = Instant::now() >= until;
        if qos == 0 && over {
            write.extend_from_slice(&[0xc0, 0]);
        }
        stream.write_all(&write).await?;
        if (qos > 0 && over && done == sent) || (qos == 0 && !over) {
            if over {
                return Ok((done, took));
            }
            continue;
        }
        let count = stream.read(&mut read[have..]).await?;
        anyhow::ensure!(count > 0, "the broker closed");
        have += count;
        if qos == 0 {
            return Ok((sent, took));
        }
        let mut answers = Vec::new();
        for ack in read[..have].chunks_exact(4) {
            let packet = u16::from_be_bytes([ack[2], ack[3]]);
            if ack[0] == 0x50 {
                answers.extend_from_slice(&[0x62, 2, ack[2], ack[3]]);
            } else {
                done += 1;
                took.push(began[usize::from(packet)].elapsed());
            }
        }
        stream.write_all(&answers).await?;
        let whole = have / 4 * 4;
        read.copy_within(whole..have, 0);
        have -= whole;
    }
}

fn publish(to: &mut Vec<u8>, topic: &str, bytes: usize, qos: u8, packet: u16) {
    let mut length = 2 + topic.len() + if qos > 0 { 2 } else { 0 } + bytes;
    to.push(0x30 | qos << 1);
    while length > 127 {
        to.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    to.push(length as u8);
    to.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    to.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        to.extend_from_slice(&packet.to_be_bytes());
    }
    to.resize(to.len() + bytes, b'x');
}
