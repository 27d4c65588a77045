//! The simulator of a world: there, stopped, and there again on the same port.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use himds_sim::Simulator;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, World};

impl World {
    /// The simulator.
    pub fn simulator(&self) -> &Simulator {
        self.simulator.as_ref().unwrap()
    }

    /// Whether the simulator runs.
    pub fn is_simulated(&self) -> bool {
        self.simulator.is_some()
    }

    /// Where the simulator listens, or did.
    pub fn himds_address(&self) -> SocketAddr {
        self.options.listen
    }

    /// Stops the simulator: its port is closed, and nobody gets it by chance.
    pub async fn stop_simulator(&mut self) {
        self.simulator.take().unwrap().stop().await;
        if self.port.is_none() {
            // Bound and not listening: whoever asks for exactly this port may still have it.
            let port = TcpSocket::new_v4().unwrap();
            port.set_reuseaddr(true).unwrap();
            port.bind(self.options.listen).unwrap();
            self.port = Some(port);
        }
    }

    /// Starts a simulator again on the same port.
    pub async fn start_simulator(&mut self) {
        let end = Instant::now() + PATIENCE;
        self.simulator = loop {
            match Simulator::start(self.options.clone()).await {
                // A program that is just being started has a copy of every socket for a moment,
                // also of those that were closed here meanwhile.
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                    sleep(Duration::from_millis(10)).await;
                }
                started => break Some(started.unwrap()),
            }
        };
    }
}
