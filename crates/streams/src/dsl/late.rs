//! Records that windows refuse, as a stream of their own.

use std::any::{Any, TypeId};
use std::sync::Arc;

use super::{KStream, KTable, node};
use crate::error::TopologyError;
use crate::operator::stateless::PassThrough;
use crate::record::{Data, Windowed};
use crate::runtime::{Assembly, Fan};
use crate::topology::{Graph, Kind, NodeId, SideOutput};

impl<K: Data, A: Data> KTable<Windowed<K>, A> {
    /// The records that came too late for this table's windows: those that were in no window any more that may still
    /// change. They are counted as dropped all the same. The idea is Flink's side output of late data.
    ///
    /// `V` is the type of the stream that was aggregated. Only for what an aggregation of one stream by windows or
    /// sessions returns; a topology that asks another table for it is refused.
    ///
    /// ```
    /// use fleuve_streams::{TestDriver, TimeWindows, Topology};
    ///
    /// let app = Topology::new("app");
    /// let clicks = app.stream::<String, String>("clicks");
    /// let counts = clicks.group_by_key().windowed_by(TimeWindows::of_ms(10, 0)).count("counts");
    /// counts.late::<String>().to("too-late");
    ///
    /// let mut driver = TestDriver::new(&app).unwrap();
    /// driver.input("clicks").at(25).send("ann", "a").at(3).send("ann", "b");
    /// driver.output::<String, String>("too-late").expect([("ann", "b")]);
    /// ```
    pub fn late<V: Data>(&self) -> KStream<K, V> {
        let mut graph = self.graph.lock();
        let aggregation = graph.nodes[self.node].name.clone();
        let refusal = match graph.nodes[self.node].late {
            Some(types) if types == TypeId::of::<(K, V)>() => None,
            Some(_) => Some("the stream that it aggregates is of another type"),
            None => Some("it is not what one stream by windows or sessions was aggregated to"),
        };
        if let Some(refusal) = refusal {
            let message = format!("{aggregation} has no such late records: {refusal}");
            graph.errors.push(TopologyError::Invalid(message));
        }
        let known = graph.nodes[self.node].children.iter().copied().find(|child| {
            graph.nodes[*child].output.as_ref().is_some_and(|output| output.name == LATE)
        });
        let id = known.unwrap_or_else(|| add_node::<K, V>(&mut graph, self.node));
        let name = graph.nodes[id].name.clone();
        drop(graph);
        KStream {
            graph: self.graph.clone(),
            node: id,
            name,
            key: None,
            value: None,
            sources: self.sources.clone(),
            // They are where their keys belong: the aggregation wanted them there.
            repartition: false,
            next_name: None,
        }
    }
}

fn add_node<K: Data, V: Data>(graph: &mut Graph, aggregation: NodeId) -> NodeId {
    let name = format!("{}-{LATE}", graph.nodes[aggregation].name);
    let build = node::<K, V, _>(|assembly, id| PassThrough { children: assembly.children(id) });
    let id = graph.add_node(name, Kind::Processor, &[aggregation], build);
    graph.nodes[id].output = Some(SideOutput {
        name: LATE.to_owned(),
        receiver: Arc::new(|assembly, id| {
            Box::new(Fan::<K, V>::of(vec![assembly.receiver(id)])) as Box<dyn Any + Send>
        }),
    });
    id
}

/// Who wants the late records of an aggregation of `(K, V)`.
pub(crate) fn late_of<K: Data, V: Data>(assembly: &mut Assembly<'_>, id: NodeId) -> Fan<K, V> {
    let outputs = assembly.side_outputs(id);
    let late = outputs.into_iter().find(|(name, _)| name == LATE);
    late.and_then(|(_, fan)| fan.downcast().ok()).map_or(Fan::None, |fan| *fan)
}

/// The output's name, and the end of its node's.
const LATE: &str = "late";
