//! A topology as JSON, for programs that draw or compare it.

use serde_json::{Value, json};

use super::{Kind, NodeId, Plan, SinkTopic, Subtopology, TopicPattern};

impl Plan {
    /// The topology as JSON: the application, its subtopologies, their nodes with what follows each, their topics.
    ///
    /// Topics have their full names. A sink without topics chooses one for each record.
    pub fn to_json(&self) -> Value {
        let parts: Vec<Value> =
            self.subtopologies().iter().map(|part| self.part_to_json(part)).collect();
        json!({ "application": self.application_id(), "subtopologies": parts })
    }

    fn part_to_json(&self, part: &Subtopology) -> Value {
        let nodes: Vec<Value> = part.nodes.iter().map(|id| self.node_to_json(*id)).collect();
        let names = |topics: &[super::InternalTopic]| -> Vec<String> {
            topics.iter().map(|topic| topic.name.clone()).collect()
        };
        json!({
            "id": part.id,
            "global": part.global,
            "sourceTopics": part.source_topics,
            "sinkTopics": part.sink_topics,
            "repartitionTopics": names(&part.repartition_topics),
            "changelogTopics": names(&part.changelog_topics),
            "stores": part.stores,
            "nodes": nodes,
        })
    }

    fn node_to_json(&self, id: NodeId) -> Value {
        let node = &self.nodes[id];
        let (kind, topics) = match &node.kind {
            Kind::Source { topics, .. } => {
                ("source", topics.iter().map(|topic| self.decorated(topic)).collect())
            }
            Kind::Processor => ("processor", Vec::new()),
            Kind::Sink(SinkTopic::Fixed(topic)) => ("sink", vec![self.decorated(topic)]),
            Kind::Sink(SinkTopic::Chosen) => ("sink", Vec::new()),
        };
        let children: Vec<&str> =
            node.children.iter().map(|child| self.nodes[*child].name.as_str()).collect();
        json!({
            "name": node.name,
            "kind": kind,
            "topics": topics,
            "stores": node.stores,
            "children": children,
            "pattern": node.pattern.as_ref().map(TopicPattern::text),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Topology;

    #[test]
    fn every_node_names_what_follows_it_and_topics_have_their_full_names() {
        let app = Topology::new("app");
        app.stream::<(), String>("lines").group_by(|_, line| line.clone()).count("n");
        let plan = app.build().expect("a valid topology");
        let described = plan.to_json();
        assert_eq!(described["application"], "app");
        let [first, second] = described["subtopologies"].as_array().expect("parts").as_slice()
        else {
            panic!("two parts: {described}");
        };
        assert_eq!(first["sourceTopics"], json!(["lines"]));
        assert_eq!(first["sinkTopics"], json!(["app-n-repartition"]));
        assert_eq!(first["nodes"][0]["kind"], "source");
        assert_eq!(first["nodes"][0]["topics"], json!(["lines"]));
        assert_eq!(first["nodes"][0]["children"], json!([first["nodes"][1]["name"]]));
        assert_eq!(second["repartitionTopics"], json!(["app-n-repartition"]));
        assert_eq!(second["changelogTopics"], json!(["app-n-changelog"]));
        let counting = &second["nodes"].as_array().expect("nodes")[1];
        assert_eq!((&counting["kind"], &counting["stores"]), (&json!("processor"), &json!(["n"])));
    }
}
