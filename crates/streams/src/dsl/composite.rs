//! Composite transforms: parts of topologies that programs name and use again.

use super::{KStream, KTable, Topology};
use crate::topology::SharedGraph;

/// A part of a topology: streams or tables in, streams or tables out. The idea is Beam's composite transform.
///
/// Every function of such a shape is one; a type is one for what has settings.
///
/// ```
/// use fleuve_streams::{KStream, TestDriver, Topology, Transform};
///
/// /// Words of at least so many letters.
/// struct LongWords(usize);
///
/// impl<K: Clone + Send + 'static> Transform<KStream<K, String>> for LongWords {
///     type Output = KStream<K, String>;
///
///     fn expand(self, lines: KStream<K, String>) -> KStream<K, String> {
///         lines
///             .flat_map_values(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
///             .filter(move |_, word| word.len() >= self.0)
///     }
/// }
///
/// let app = Topology::new("app");
/// let words = app.stream::<(), String>("lines").apply("long-words", LongWords(3));
/// words.apply("shouted", |words: KStream<(), String>| words.map_values(|word| word + "!")).to("out");
///
/// let mut driver = TestDriver::new(&app).unwrap();
/// driver.input("lines").send(&(), "to be and not to be");
/// driver.output::<(), String>("out").expect([((), "and!"), ((), "not!")]);
/// assert!(app.describe().unwrap().contains("long-words-KSTREAM-FILTER-0000000001"));
/// ```
pub trait Transform<I> {
    /// What comes out.
    type Output;

    /// Adds the operators.
    fn expand(self, input: I) -> Self::Output;
}

impl<I, O, F: FnOnce(I) -> O> Transform<I> for F {
    type Output = O;

    fn expand(self, input: I) -> O {
        self(input)
    }
}

impl Topology {
    /// Writes a part of the topology under a name: names that are generated in it begin with that, and are numbered on
    /// their own. Operators that come or go elsewhere leave them, and with them internal topics and state, as they are.
    /// Names that the program gives are not touched.
    pub fn scope<R>(&self, name: &str, write: impl FnOnce(&Self) -> R) -> R {
        scoped(&self.graph, name, || write(self))
    }
}

impl<K, V> KStream<K, V> {
    /// Applies a composite transform under a name, as [`Topology::scope`] has it.
    pub fn apply<T: Transform<Self>>(&self, name: &str, transform: T) -> T::Output {
        scoped(&self.graph, name, || transform.expand(self.clone()))
    }
}

impl<K, V> KTable<K, V> {
    /// Applies a composite transform under a name, as [`Topology::scope`] has it.
    pub fn apply<T: Transform<Self>>(&self, name: &str, transform: T) -> T::Output {
        scoped(&self.graph, name, || transform.expand(self.clone()))
    }
}

fn scoped<R>(graph: &SharedGraph, name: &str, write: impl FnOnce() -> R) -> R {
    graph.lock().enter(name);
    let written = write();
    graph.lock().leave();
    written
}
