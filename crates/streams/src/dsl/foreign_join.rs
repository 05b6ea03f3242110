//! Joins of tables by a foreign key.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use super::app::{Consumed, source_builder};
use super::ktable::{KTable, SourceTable};
use super::produced::{Produced, sink_builder};
use super::{Materialized, node};
use crate::operator::foreign_join::{Answer, Notify, Receive, Resolve, Subscribe, Subscriptions};
use crate::operator::sink::Target;
use crate::operator::source::TableSource;
use crate::record::{Change, Data};
use crate::serde::foreign::{Response, ResponseSerde, Subscription, SubscriptionSerde};
use crate::serde::{SerdeOf, StreamType};
use crate::state::{AnyStore, Kept, KvStoreSettings, MemoryBackend};
use crate::topology::{ChangelogKind, Graph, Kind, SinkTopic, StoreSpec};

type Extract<K, V, L> = Arc<dyn Fn(&K, &V) -> Option<L> + Send + Sync>;
type Joiner<V, W, R> = Arc<dyn Fn(&V, Option<&W>) -> R + Send + Sync>;

impl<K: StreamType, V: StreamType> KTable<K, V> {
    /// Rows of this table whose foreign key, which `extract` takes out of them, the other table has. Both functions must
    /// be pure.
    pub fn join_foreign<L: StreamType, W: StreamType, R: StreamType>(
        &self,
        other: &KTable<L, W>,
        extract: impl Fn(&K, &V) -> Option<L> + Send + Sync + 'static,
        joiner: impl Fn(&V, &W) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        self.join_foreign_with(other, extract, joiner, Materialized::unnamed())
    }

    /// [`Self::join_foreign`] kept in a store, if that has a name.
    pub fn join_foreign_with<L: StreamType, W: StreamType, R: StreamType>(
        &self,
        other: &KTable<L, W>,
        extract: impl Fn(&K, &V) -> Option<L> + Send + Sync + 'static,
        joiner: impl Fn(&V, &W) -> R + Send + Sync + 'static,
        materialized: Materialized<K, R>,
    ) -> KTable<K, R> {
        let joiner: Joiner<V, W, R> = Arc::new(move |row, found| match found {
            Some(found) => joiner(row, found),
            None => unreachable!("an inner join joins two values"),
        });
        self.joined_by(other, Arc::new(extract), joiner, false, materialized)
    }

    /// All rows of this table, with the other table's row of their foreign key where it has one.
    pub fn left_join_foreign<L: StreamType, W: StreamType, R: StreamType>(
        &self,
        other: &KTable<L, W>,
        extract: impl Fn(&K, &V) -> Option<L> + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        self.left_join_foreign_with(other, extract, joiner, Materialized::unnamed())
    }

    /// [`Self::left_join_foreign`] kept in a store, if that has a name.
    pub fn left_join_foreign_with<L: StreamType, W: StreamType, R: StreamType>(
        &self,
        other: &KTable<L, W>,
        extract: impl Fn(&K, &V) -> Option<L> + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&W>) -> R + Send + Sync + 'static,
        materialized: Materialized<K, R>,
    ) -> KTable<K, R> {
        self.joined_by(other, Arc::new(extract), Arc::new(joiner), true, materialized)
    }

    fn joined_by<L: StreamType, W: StreamType, R: StreamType>(
        &self,
        other: &KTable<L, W>,
        extract: Extract<K, V, L>,
        joiner: Joiner<V, W, R>,
        left: bool,
        materialized: Materialized<K, R>,
    ) -> KTable<K, R> {
        let key = self.key.clone().unwrap_or_else(SerdeOf::usual);
        let value = self.value.clone().unwrap_or_else(SerdeOf::usual);
        let foreign_key = other.key.clone().unwrap_or_else(SerdeOf::usual);
        let subscriptions = SerdeOf::new(SubscriptionSerde(key.clone()));
        let responses =
            SerdeOf::new(ResponseSerde(other.value.clone().unwrap_or_else(SerdeOf::usual)));
        let mut graph = self.graph.lock();
        other.view.enable_old(&mut graph, true);
        self.view.enable_old(&mut graph, true);
        let names = Names::new(&mut graph, self.next_name.as_deref());
        for topic in [&names.subscription_topic, &names.response_topic] {
            graph.repartitions.insert(topic.clone(), None);
        }

        let (hashed, subscribed) = (value.clone(), foreign_key.clone());
        let subscribe = graph.add_node(
            names.subscribe,
            Kind::Processor,
            &[self.node],
            node::<K, Change<V>, _>(move |assembly, id| {
                let extract = extract.clone();
                Subscribe {
                    node: assembly.name(id),
                    extract: move |key: &K, value: &V| extract(key, value),
                    left,
                    foreign_key: subscribed.clone(),
                    value: hashed.clone(),
                    children: assembly.children(id),
                }
            }),
        );
        let topic: Arc<str> = Arc::from(graph.decorated(&names.subscription_topic));
        graph.add_node(
            names.subscribe_sink,
            Kind::Sink(SinkTopic::Fixed(names.subscription_topic.clone())),
            &[subscribe],
            sink_builder(
                Produced::with(foreign_key.nullable(), subscriptions.clone()),
                move || Target::Fixed(topic.clone()),
            ),
        );
        let source = graph.add_node(
            names.subscribe_source,
            Kind::Source { topics: vec![names.subscription_topic], global: false },
            &[],
            source_builder(Consumed::with(foreign_key.nullable(), subscriptions.clone())),
        );
        let mut copartitioned = other.sources.clone();
        copartitioned.insert(source);
        graph.copartition(copartitioned);

        let (store, primary, foreign) = (names.store.clone(), key.clone(), foreign_key.clone());
        let receive = graph.add_node(
            names.receive,
            Kind::Processor,
            &[source],
            node::<Option<L>, Subscription<K>, _>(move |assembly, id| Receive {
                node: assembly.name(id),
                slot: assembly.store::<Subscriptions<K>>(&store),
                primary_key: primary.clone(),
                foreign_key: foreign.clone(),
                children: assembly.children(id),
            }),
        );
        add_subscriptions(&mut graph, names.store.clone(), subscriptions);
        graph.connect(receive, &names.store);
        let right = other.view.clone();
        let right_stores = right.stores(&mut graph);
        let answer = graph.add_node(
            names.answer,
            Kind::Processor,
            &[receive],
            node::<Option<L>, Subscription<K>, _>(move |assembly, id| Answer {
                node: assembly.name(id),
                right: right.getter(assembly),
                children: assembly.children(id),
            }),
        );
        for store in right_stores {
            graph.connect(answer, &store);
        }
        let store = names.store.clone();
        let notify = graph.add_node(
            names.notify,
            Kind::Processor,
            &[other.node],
            node::<L, Change<W>, _>(move |assembly, id| Notify {
                node: assembly.name(id),
                slot: assembly.store::<Subscriptions<K>>(&store),
                foreign_key: foreign_key.clone(),
                children: assembly.children(id),
            }),
        );
        graph.connect(notify, &names.store);

        let topic: Arc<str> = Arc::from(graph.decorated(&names.response_topic));
        let produced = Produced::with(key.clone(), responses.clone())
            .partitioner(|_, response: &Response<W>| response.partition.map(|number| vec![number]));
        graph.add_node(
            names.response_sink,
            Kind::Sink(SinkTopic::Fixed(names.response_topic.clone())),
            &[answer, notify],
            sink_builder(produced, move || Target::Fixed(topic.clone())),
        );
        let source = graph.add_node(
            names.response_source,
            Kind::Source { topics: vec![names.response_topic], global: false },
            &[],
            source_builder(Consumed::with(key.clone(), responses)),
        );
        let mut sources = self.sources.clone();
        sources.insert(source);
        graph.copartition(sources.clone());
        let rows = self.view.clone();
        let left_stores = rows.stores(&mut graph);
        let resolve = graph.add_node(
            names.resolve,
            Kind::Processor,
            &[source],
            node::<K, Response<W>, _>(move |assembly, id| {
                let joiner = joiner.clone();
                Resolve {
                    node: assembly.name(id),
                    left,
                    join: move |row: &V, found: Option<&W>| joiner(row, found),
                    rows: rows.getter(assembly),
                    value: value.clone(),
                    children: assembly.children(id),
                    input: PhantomData,
                }
            }),
        );
        for store in left_stores {
            graph.connect(resolve, &store);
        }
        let result = graph.add_node(
            names.result,
            Kind::Processor,
            &[resolve],
            node::<K, Option<R>, _>(|assembly, id| TableSource::<K, R>::new(assembly, id)),
        );
        let named = materialized.name.is_some();
        let view = Arc::new(SourceTable {
            node: result,
            store: match &materialized.name {
                Some(name) => name.clone(),
                None => graph.next_store_name("KTABLE-FK-JOIN-OUTPUT-"),
            },
            key: materialized.key.clone().unwrap_or_else(|| key.clone()),
            value: materialized.value.clone().unwrap_or_else(SerdeOf::usual),
            materialized,
        });
        if named {
            super::ktable::TableView::stores(&*view, &mut graph);
        }
        let value = view.value.clone();
        drop(graph);
        KTable {
            graph: self.graph.clone(),
            node: result,
            key: Some(key),
            value: Some(value),
            sources,
            view,
            next_name: None,
        }
    }
}

/// Names of a join's nodes, topics and store.
struct Names {
    subscription_topic: String,
    subscribe: String,
    subscribe_sink: String,
    subscribe_source: String,
    store: String,
    receive: String,
    answer: String,
    notify: String,
    response_topic: String,
    response_sink: String,
    response_source: String,
    resolve: String,
    result: String,
}

impl Names {
    /// In the order in which Kafka Streams numbers them.
    fn new(graph: &mut Graph, named: Option<&str>) -> Self {
        let mut or = |suffix: &str, prefix: &str| graph.suffixed(named, suffix, prefix);
        const PROCESSOR: &str = "KTABLE-FK-JOIN-SUBSCRIPTION-PROCESSOR-";
        const REGISTRATION: &str = "KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-";
        Self {
            subscription_topic: or("-subscription-registration", REGISTRATION) + "-topic",
            subscribe: or("-subscription-registration-processor", REGISTRATION),
            subscribe_sink: or("-subscription-registration-sink", "KTABLE-SINK-"),
            subscribe_source: or("-subscription-registration-source", "KTABLE-SOURCE-"),
            store: or("-subscription-store", "KTABLE-FK-JOIN-SUBSCRIPTION-STATE-STORE-"),
            receive: or("-subscription-receive", PROCESSOR),
            answer: or("-subscription-join-foreign", PROCESSOR),
            notify: or("-foreign-join-subscription", PROCESSOR),
            response_topic: or("-subscription-response", "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-")
                + "-topic",
            response_sink: or("-subscription-response-sink", "KTABLE-SINK-"),
            response_source: or("-subscription-response-source", "KTABLE-SOURCE-"),
            resolve: or(
                "-subscription-response-resolver",
                "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-RESOLVER-PROCESSOR-",
            ),
            result: or("-result", "KTABLE-FK-JOIN-OUTPUT-"),
        }
    }
}

fn add_subscriptions<K: Data>(graph: &mut Graph, name: String, value: SerdeOf<Subscription<K>>) {
    graph.add_store(StoreSpec {
        name,
        build: Arc::new(move |spec, topic| {
            let settings = KvStoreSettings {
                name: spec.name.clone(),
                topic: topic.to_owned(),
                key: SerdeOf::<Bytes>::usual(),
                value: value.clone(),
                logged: spec.logged,
                cached: false,
                logs_headers: true,
                kept: Kept::Newest,
            };
            let store: Box<dyn AnyStore> =
                Box::new(Subscriptions::<K>::new(settings, Box::new(MemoryBackend::default())));
            store
        }),
        logged: true,
        cached: false,
        changelog: ChangelogKind::KeyValue,
        changelog_config: Default::default(),
        source_topic: None,
        store_type: None,
        global: false,
    });
}
