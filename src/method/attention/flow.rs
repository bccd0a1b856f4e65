//! Attention flow: the most that can flow from the output token to each input token when attention weights are the
//! capacities of pipes.
//!
//! Abnar & Zuidema, ACL 2020. Nodes (l, i), l = 0..L; the edge (l+1, i) -> (l, j) has capacity
//! `rownorm(mean_h A^l + I)[i, j]`. Relevance of j = maximum flow from (L, row) to (0, j), each j a problem of its own,
//! `[T]`. `normalise=sum` divides by the sum over all tokens, as the authors do. Not class-specific.
//!
//! Dinic's algorithm on the dense layered graph, one problem a thread: T problems of L T^2 edges each.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::combine::{add_identity, normalise, Normalise};
use crate::method::contract::{Entry, Method, Relevance};
use crate::nn::numbers;
use crate::run::{Heads, Params, Pick, Reads, Rows, Run};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

pub(super) const ENTRY: Entry = Entry {
    name: "flow",
    aliases: &["attention-flow"],
    title: "maximum flow through attention as a network of pipes",
    paper: "Abnar & Zuidema, ACL 2020",
    class_specific: false,
    build,
};

/// Residual capacity below which a pipe counts as full.
const EPSILON: f64 = 1e-12;
/// Measured on one core: seconds an input token and edge.
const SECONDS_PER_EDGE: f64 = 30e-9;

struct Flow {
    heads: Heads,
    residual: bool,
    share: bool,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let heads = params.heads()?;
    let residual = params.flag("residual", true, "add the identity for the skip connection and normalise rows")?;
    let share =
        params.one_of("normalise", &[("none", false), ("sum", true)], "sum: divide by the sum over all tokens")?;
    Ok(Box::new(Flow { heads, residual, share, rows: params.rows()? }))
}

impl Method for Flow {
    fn check(&self, model: &Facts) -> Result<()> {
        self.heads.check(model)?;
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn patience(&self, tokens: usize, layers: usize) -> Option<String> {
        let sources = if self.rows.matrix { tokens } else { 1 };
        let edges = (layers * tokens * tokens) as f64;
        let seconds = edges * (tokens * sources) as f64 * SECONDS_PER_EDGE / rayon::current_num_threads() as f64;
        (seconds > 10.0).then(|| format!("flow on {tokens} tokens and {layers} layers takes about {seconds:.0} s an input; a smaller --size makes the grid smaller"))
    }

    fn agnostic(&self) -> bool {
        true
    }

    fn reads(&self) -> Reads {
        Reads::Attention
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let capacity = |layer: usize| -> Result<Vec<f64>> {
            let joined = self.heads.join(&run.attention(layer)?)?;
            let pipes = if self.residual { normalise(&add_identity(&joined)?, Normalise::Rows)? } else { joined };
            numbers(&pipes)
        };
        let tokens = run.tokens();
        let capacities = (0..run.layers()).map(capacity).collect::<Result<Vec<_>>>()?.concat(); // [L,T,T]
        let network = Network { tokens, layers: run.layers(), capacities };
        let pick = self.rows.pick(run)?;
        let sources = match pick {
            Pick::One(row) => vec![row],
            Pick::All | Pick::Pooled(_) => (0..tokens).collect(),
        };
        let mut relevance = Vec::with_capacity(sources.len() * tokens);
        for (done, &source) in sources.iter().enumerate() {
            relevance.extend(network.flows(source, |sink| run.progress(done * tokens + sink, sources.len() * tokens))?);
        }
        let rows = pick.pool(Tensor::from_vec(relevance, (sources.len(), tokens), &Device::Cpu)?)?; // [R,T]
        let mut relevance: Vec<f32> = Vec::with_capacity(rows.elem_count());
        for flows in rows.to_vec2::<f64>()? {
            let scale = if self.share { flows.iter().sum::<f64>() } else { 1.0 };
            relevance.extend(flows.iter().map(|f| (f / scale) as f32));
        }
        Ok(relevance.into())
    }
}

/// The layered graph; node (l, i) has number l * T + i.
struct Network {
    tokens: usize,
    layers: usize,
    /// `[L,T,T]`: capacity of the pipe from (l+1, i) to (l, j).
    capacities: Vec<f64>,
}

impl Network {
    /// Maximum flow from (L, source) to every (0, j), a few at a time so that progress can be told.
    fn flows(&self, source: usize, progress: impl Fn(usize) -> Result<()>) -> Result<Vec<f64>> {
        let group = 4 * rayon::current_num_threads();
        let mut flows = Vec::with_capacity(self.tokens);
        for from in (0..self.tokens).step_by(group) {
            let sinks = from..(from + group).min(self.tokens);
            flows.par_extend(sinks.clone().into_par_iter().map(|sink| Dinic::new(self).maximum(source, sink)));
            progress(sinks.end)?;
        }
        match flows.iter().all(|f| f.is_finite()) {
            true => Ok(flows),
            false => Err(Error::Numeric("flow: attention is not finite".into())),
        }
    }
}

/// Dinic's algorithm: augment along shortest paths, all of one length at a time.
struct Dinic<'a> {
    network: &'a Network,
    /// What still fits down each pipe, and what can be sent back up.
    down: Vec<f64>,
    up: Vec<f64>,
    /// Distance of each node from the source.
    distance: Vec<u32>,
    /// The edge of each node to try next: the first T lead down, the others up.
    next: Vec<usize>,
}

impl<'a> Dinic<'a> {
    fn new(network: &'a Network) -> Self {
        let nodes = (network.layers + 1) * network.tokens;
        let up = vec![0.0; network.capacities.len()];
        Dinic { network, down: network.capacities.clone(), up, distance: vec![0; nodes], next: vec![0; nodes] }
    }

    fn maximum(&mut self, source: usize, sink: usize) -> f64 {
        let source = self.network.layers * self.network.tokens + source;
        let mut total = 0.0;
        while self.measure(source, sink) {
            self.next.fill(0);
            total += self.push(source, sink, f64::INFINITY);
        }
        total
    }

    /// The node an edge leads to, and the pipe it runs through.
    fn edge(&self, node: usize, edge: usize) -> Option<(usize, usize, bool)> {
        let t = self.network.tokens;
        let (layer, token) = (node / t, node % t);
        if edge < t {
            return (layer > 0).then(|| ((layer - 1) * t + edge, ((layer - 1) * t + token) * t + edge, true));
        }
        let above = edge - t;
        (layer < self.network.layers).then(|| ((layer + 1) * t + above, (layer * t + above) * t + token, false))
    }

    fn fits(&self, pipe: usize, down: bool) -> f64 {
        if down {
            self.down[pipe]
        } else {
            self.up[pipe]
        }
    }

    /// Breadth-first distances from the source; whether the sink can be reached.
    fn measure(&mut self, source: usize, sink: usize) -> bool {
        self.distance.fill(u32::MAX);
        self.distance[source] = 0;
        let mut queue = std::collections::VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            if node == sink {
                return true;
            }
            for edge in 0..2 * self.network.tokens {
                let Some((to, pipe, down)) = self.edge(node, edge) else { continue };
                if self.distance[to] == u32::MAX && self.fits(pipe, down) > EPSILON {
                    self.distance[to] = self.distance[node] + 1;
                    queue.push_back(to);
                }
            }
        }
        false
    }

    /// Sends up to `limit` from a node towards the sink along shortest paths; returns what arrived.
    fn push(&mut self, node: usize, sink: usize, limit: f64) -> f64 {
        if node == sink {
            return limit;
        }
        let mut sent = 0.0;
        while self.next[node] < 2 * self.network.tokens {
            if let Some((to, pipe, down)) = self.edge(node, self.next[node]) {
                let fits = self.fits(pipe, down);
                if fits > EPSILON && self.distance[to] == self.distance[node] + 1 {
                    let arrived = self.push(to, sink, fits.min(limit - sent));
                    let (forth, back) =
                        if down { (&mut self.down, &mut self.up) } else { (&mut self.up, &mut self.down) };
                    forth[pipe] -= arrived;
                    back[pipe] += arrived;
                    sent += arrived;
                    if limit - sent <= EPSILON {
                        return sent;
                    }
                }
            }
            self.next[node] += 1;
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_needs_to_be_sent_back() {
        // Two layers of two tokens; the greedy path takes a pipe that the best flow must not use.
        let capacities = vec![1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0];
        let network = Network { tokens: 2, layers: 2, capacities };
        let flows = network.flows(0, |_| Ok(())).unwrap();
        assert_eq!(flows, [1.0, 0.0]);
    }

    #[test]
    fn large_grids_are_announced() {
        let flow =
            |matrix| Flow { heads: Heads::Mean, residual: true, share: false, rows: Rows { matrix, ..Rows::HEAD } };
        assert_eq!(flow(false).patience(145, 9), None);
        assert!(flow(false).patience(1025, 12).unwrap().contains("1025 tokens"));
        assert!(flow(true).patience(197, 12).is_some());
    }

    #[test]
    fn the_narrowest_cut_is_the_flow() {
        let network = Network { tokens: 2, layers: 2, capacities: vec![0.1, 0.9, 0.2, 0.8, 0.7, 0.3, 0.5, 0.5] };
        let flows = network.flows(0, |_| Ok(())).unwrap();
        // Into (0,0): 0.1 + 0.2. Into (0,1): min over paths 0.7->0.9 and 0.3->0.8.
        assert!((flows[0] - 0.3).abs() < 1e-12 && (flows[1] - 1.0).abs() < 1e-12, "{flows:?}");
    }
}
