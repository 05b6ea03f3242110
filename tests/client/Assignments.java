import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.GroupSubscription;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;

/**
 * What Java's cooperative-sticky assignor makes of groups that members join and leave: Assignments SEED GROUPS.
 *
 * A line each: partition counts ; members with generation, topics and what they own ; what they get.
 *   t0=3,t1=2;m0@4[t0,t1]t0-0,t0-1|m1@4[t0];m0=t0-0|m1=t0-1
 */
public class Assignments {
    static final int STEPS = 6;

    public static void main(String[] arguments) {
        Random random = new Random(Long.parseLong(arguments[0]));
        for (int group = 0; group < Integer.parseInt(arguments[1]); group++) {
            live(random);
        }
    }

    static void live(Random random) {
        TreeMap<String, Integer> counts = new TreeMap<>();
        for (int topic = 0; topic <= random.nextInt(4); topic++) {
            counts.put("t" + topic, random.nextInt(9));
        }
        boolean alike = random.nextInt(3) > 0;
        TreeMap<String, List<String>> wanted = new TreeMap<>();
        TreeMap<String, List<TopicPartition>> owned = new TreeMap<>();
        int generation = 0;
        int names = 0;
        for (int step = 0; step < STEPS; step++) {
            int change = wanted.isEmpty() ? 0 : random.nextInt(4);
            if (change == 0 || change == 1) {
                for (int more = 0; more <= random.nextInt(3); more++) {
                    List<String> topics = new ArrayList<>(counts.keySet());
                    if (!alike) topics.removeIf(topic -> random.nextInt(3) == 0);
                    // To members who want nothing, Java's assignor may leave what they had.
                    if (topics.isEmpty()) topics.addAll(counts.keySet());
                    String name = "m" + names++;
                    wanted.put(name, topics);
                    owned.put(name, new ArrayList<>());
                }
            } else if (change == 2 && wanted.size() > 1) {
                String gone = new ArrayList<>(wanted.keySet()).get(random.nextInt(wanted.size()));
                wanted.remove(gone);
                owned.remove(gone);
            } else {
                String grown = new ArrayList<>(counts.keySet()).get(random.nextInt(counts.size()));
                counts.merge(grown, random.nextInt(3), Integer::sum);
            }
            // Two divisions: what the first takes away the second gives out.
            for (int round = 0; round < 2; round++) {
                Map<String, List<TopicPartition>> shares = divide(counts, wanted, owned, generation);
                generation++;
                owned.replaceAll((name, before) -> shares.get(name));
            }
        }
    }

    static Map<String, List<TopicPartition>> divide(
            TreeMap<String, Integer> counts, TreeMap<String, List<String>> wanted, TreeMap<String, List<TopicPartition>> owned, int generation) {
        Node node = new Node(1, "localhost", 9092);
        Set<PartitionInfo> partitions = new HashSet<>();
        counts.forEach((topic, count) -> {
            for (int index = 0; index < count; index++) {
                partitions.add(new PartitionInfo(topic, index, node, new Node[] {node}, new Node[] {node}));
            }
        });
        Cluster cluster = new Cluster("c", Collections.singleton(node), partitions, Set.of(), Set.of());
        Map<String, Subscription> subscriptions = new HashMap<>();
        StringBuilder line = new StringBuilder();
        counts.forEach((topic, count) -> line.append(line.isEmpty() ? "" : ",").append(topic).append('=').append(count));
        String separator = ";";
        for (String name : wanted.keySet()) {
            // A member that was not there yet has no generation.
            int of = owned.get(name).isEmpty() ? -1 : generation;
            subscriptions.put(name, new Subscription(wanted.get(name), null, owned.get(name), of, Optional.empty()));
            line.append(separator).append(name).append('@').append(of).append('[').append(String.join(",", wanted.get(name))).append(']').append(text(owned.get(name)));
            separator = "|";
        }
        Map<String, Assignment> assigned = new CooperativeStickyAssignor().assign(cluster, new GroupSubscription(subscriptions)).groupAssignment();
        Map<String, List<TopicPartition>> shares = new TreeMap<>();
        separator = ";";
        for (String name : wanted.keySet()) {
            shares.put(name, new ArrayList<>(assigned.get(name).partitions()));
            line.append(separator).append(name).append('=').append(text(shares.get(name)));
            separator = "|";
        }
        System.out.println(line);
        return shares;
    }

    static String text(List<TopicPartition> partitions) {
        TreeSet<String> sorted = new TreeSet<>();
        partitions.forEach(partition -> sorted.add(partition.toString()));
        return String.join(",", sorted);
    }
}
