//! A topology as text, in the form of Kafka Streams' `Topology#describe()`.
//!
//! Nodes of a subtopology are sorted by the number of nodes below them (a node reached on two paths counts twice, as
//! it does there), then by name.

use std::collections::BTreeMap;
use std::fmt;

use super::{Kind, NodeId, Plan, SinkTopic, Subtopology};

impl Plan {
    /// The topology in the form of Kafka Streams' `describe()`.
    pub fn describe(&self) -> String {
        self.to_string()
    }

    /// The topology for Graphviz.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph topology {\n  rankdir=LR;\n");
        for part in self.subtopologies() {
            dot += &format!("  subgraph cluster_{} {{\n    label=\"{}\";\n", part.id, part.id);
            for id in &part.nodes {
                let node = &self.nodes[*id];
                let name = quoted(&node.name);
                let shape = match node.kind {
                    Kind::Source { .. } => "invhouse",
                    Kind::Processor => "box",
                    Kind::Sink(_) => "house",
                };
                dot += &format!("    {name} [shape={shape}];\n");
                for store in &node.stores {
                    let store = quoted(&format!("store {store}"));
                    dot += &format!(
                        "    {store} [shape=cylinder];\n    {name} -> {store} [dir=both, style=dashed];\n",
                    );
                }
            }
            dot += "  }\n";
            for id in &part.nodes {
                let node = &self.nodes[*id];
                let mut edge = |from: &str, to: &str| {
                    dot += &format!("  {} -> {};\n", quoted(from), quoted(to));
                };
                for child in &node.children {
                    edge(&node.name, &self.nodes[*child].name);
                }
                match &node.kind {
                    Kind::Source { topics, .. } => {
                        if let Some(pattern) = &node.pattern {
                            edge(pattern.text(), &node.name);
                        }
                        for topic in topics {
                            edge(&self.decorated(topic), &node.name);
                        }
                    }
                    Kind::Sink(SinkTopic::Fixed(topic)) => edge(&node.name, &self.decorated(topic)),
                    Kind::Sink(SinkTopic::Chosen) | Kind::Processor => {}
                }
            }
        }
        dot + "}\n"
    }

    /// The neighbours of each node in the order in which Kafka Streams prints them.
    ///
    /// It keeps them in sorted sets, by size and name, while the sizes are still growing, and visits the nodes in the
    /// order of a hash map. Neighbours are therefore where they belonged when they were added.
    fn neighbours(&self, nodes: &[NodeId]) -> Neighbours {
        let ids: BTreeMap<&str, NodeId> =
            nodes.iter().map(|id| (self.nodes[*id].name.as_str(), *id)).collect();
        let names: Vec<&str> = nodes.iter().map(|id| self.nodes[*id].name.as_str()).collect();
        let mut found = Neighbours::default();
        let mut sizes: BTreeMap<NodeId, usize> = nodes.iter().map(|id| (*id, 1)).collect();
        // A hash set of names is copied into a hash map before the visit.
        for name in java_hash_order(java_hash_order(names, text_hash), text_hash) {
            let id = ids[name];
            for parent in &self.nodes[id].parents {
                self.insert(found.parents.entry(id).or_default(), *parent, &sizes);
                self.insert(found.children.entry(*parent).or_default(), id, &sizes);
                let growth = sizes[&id];
                self.grow(*parent, growth, &found.parents, &mut sizes);
            }
        }
        found
    }

    fn insert(&self, sorted: &mut Vec<NodeId>, id: NodeId, sizes: &BTreeMap<NodeId, usize>) {
        if sorted.contains(&id) {
            return;
        }
        let place = sorted.partition_point(|other| {
            let by_size = sizes[&id].cmp(&sizes[other]);
            by_size.then_with(|| self.nodes[*other].name.cmp(&self.nodes[id].name)).is_lt()
        });
        sorted.insert(place, id);
    }

    fn grow(
        &self,
        id: NodeId,
        growth: usize,
        parents: &BTreeMap<NodeId, Vec<NodeId>>,
        sizes: &mut BTreeMap<NodeId, usize>,
    ) {
        if let Some(size) = sizes.get_mut(&id) {
            *size += growth;
        }
        for parent in parents.get(&id).into_iter().flatten() {
            self.grow(*parent, growth, parents, sizes);
        }
    }

    /// How many nodes hang below, counting itself and every path.
    fn size(&self, id: NodeId) -> usize {
        1 + self.nodes[id].children.iter().map(|child| self.size(*child)).sum::<usize>()
    }

    fn sorted(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let mut sorted: Vec<(usize, &str, NodeId)> =
            nodes.iter().map(|id| (self.size(*id), self.nodes[*id].name.as_str(), *id)).collect();
        sorted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        let mut ids: Vec<NodeId> = sorted.into_iter().map(|(_, _, id)| id).collect();
        ids.dedup();
        ids
    }

    fn names(&self, nodes: &[NodeId]) -> String {
        if nodes.is_empty() {
            return "none".to_owned();
        }
        nodes.iter().map(|id| self.nodes[*id].name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn write_node(
        &self,
        f: &mut fmt::Formatter<'_>,
        id: NodeId,
        neighbours: &Neighbours,
    ) -> fmt::Result {
        let node = &self.nodes[id];
        let none = Vec::new();
        let children = neighbours.children.get(&id).unwrap_or(&none);
        let parents = neighbours.parents.get(&id).unwrap_or(&none);
        match &node.kind {
            Kind::Source { topics, .. } => {
                // Undecorated, as Kafka Streams prints internal topics here.
                let topics = match &node.pattern {
                    Some(pattern) => pattern.text().to_owned(),
                    None => format!("[{}]", topics.join(", ")),
                };
                writeln!(f, "    Source: {} (topics: {topics})", node.name)?;
                writeln!(f, "      --> {}", self.names(children))
            }
            Kind::Processor => {
                let stores: Vec<&str> = node.stores.iter().map(String::as_str).collect();
                let stores = java_hash_order(stores, text_hash);
                writeln!(f, "    Processor: {} (stores: [{}])", node.name, stores.join(", "))?;
                writeln!(f, "      --> {}", self.names(children))?;
                writeln!(f, "      <-- {}", self.names(parents))
            }
            Kind::Sink(topic) => {
                match topic {
                    SinkTopic::Fixed(topic) => {
                        writeln!(f, "    Sink: {} (topic: {topic})", node.name)?;
                    }
                    SinkTopic::Chosen => {
                        writeln!(f, "    Sink: {} (topic chosen per record)", node.name)?;
                    }
                }
                writeln!(f, "      <-- {}", self.names(parents))
            }
        }
    }

    fn write_part(&self, f: &mut fmt::Formatter<'_>, part: &Subtopology) -> fmt::Result {
        let neighbours = self.neighbours(&part.nodes);
        if part.global {
            writeln!(f, "Sub-topology: {} for global store (will not generate tasks)", part.id)?;
            for id in &part.nodes {
                self.write_node(f, *id, &neighbours)?;
            }
            return Ok(());
        }
        writeln!(f, "Sub-topology: {}", part.id)?;
        for id in self.sorted(&part.nodes) {
            self.write_node(f, id, &neighbours)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topologies:\n ")?;
        for part in self.subtopologies() {
            write!(f, "  ")?;
            self.write_part(f, part)?;
        }
        Ok(())
    }
}

/// A name in quotes that it cannot leave.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Parents and children of the nodes that have some.
#[derive(Default)]
struct Neighbours {
    parents: BTreeMap<NodeId, Vec<NodeId>>,
    children: BTreeMap<NodeId, Vec<NodeId>>,
}

/// The order in which a Java `HashSet` gives what was added in this order.
pub(crate) fn java_hash_order<T>(mut items: Vec<T>, hash: impl Fn(&T) -> u32) -> Vec<T> {
    // A table doubles once it is three quarters full.
    let mut capacity = 16;
    while items.len() * 4 > capacity * 3 {
        capacity *= 2;
    }
    items.sort_by_key(|item| {
        let hash = hash(item);
        (hash ^ (hash >> 16)) as usize & (capacity - 1)
    });
    items
}

/// The hash code of a Java string.
fn text_hash(text: &&str) -> u32 {
    text.encode_utf16()
        .fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)))
}

#[cfg(test)]
mod tests {
    use crate::Topology;

    #[test]
    fn a_name_cannot_leave_its_quotes_in_dot() {
        let app = Topology::new("app");
        app.stream::<String, String>("a\"b\\").to("c");
        let dot = app.build().expect("a valid topology").to_dot();
        assert!(dot.contains(r#"  "a\"b\\" -> "KSTREAM-SOURCE-0000000000";"#), "{dot}");
    }
}
