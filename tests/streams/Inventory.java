// Lists the public interface of Kafka Streams, one line for each method: `Class method overloads`, and `Class` alone for the
// types of a package that are not asked for.
//
//   java -cp ... Inventory CLASS... -- PACKAGE...
//
// Constants count as methods without parameters. What is deprecated, inherited from Object or made by the compiler is
// left out.

import java.io.File;
import java.lang.reflect.*;
import java.util.*;
import java.util.zip.ZipFile;

public class Inventory {
    public static void main(String[] args) throws Exception {
        List<String> all = Arrays.asList(args);
        int end = all.indexOf("--");
        Set<Class<?>> asked = new LinkedHashSet<>();
        for (String name : all.subList(0, end)) asked.add(Class.forName("org.apache.kafka.streams." + name));
        for (Class<?> type : asked) {
            Map<String, Integer> overloads = new TreeMap<>();
            for (Method method : type.getMethods()) {
                if (isOurs(method)) overloads.merge(method.getName(), 1, Integer::sum);
            }
            for (Field field : type.getFields()) {
                if (!field.isAnnotationPresent(Deprecated.class) && isOf(field)) overloads.merge(field.getName(), 1, Integer::sum);
            }
            overloads.forEach((name, count) -> System.out.println(shown(type) + " " + name + " " + count));
        }
        for (String name : typesOf(all.subList(end + 1, all.size()))) {
            Class<?> type = Class.forName(name, false, Inventory.class.getClassLoader());
            boolean hidden = type.isSynthetic() || type.isAnonymousClass() || type.isAnnotationPresent(Deprecated.class);
            if (Modifier.isPublic(type.getModifiers()) && !hidden && type.getEnclosingClass() == null && !asked.contains(type)) {
                System.out.println(shown(type));
            }
        }
    }

    static boolean isOurs(Method method) {
        boolean hidden = method.isSynthetic() || method.isBridge() || method.isAnnotationPresent(Deprecated.class);
        return !hidden && isOf(method) && !isObjects(method);
    }

    /** Whether it comes from Kafka Streams, and not from Java. */
    static boolean isOf(Member member) {
        return member.getDeclaringClass().getName().startsWith("org.apache.kafka.");
    }

    /** Whether it is what every object has, said anew. */
    static boolean isObjects(Method method) {
        try {
            Object.class.getMethod(method.getName(), method.getParameterTypes());
            return true;
        } catch (NoSuchMethodException another) {
            return false;
        }
    }

    static String shown(Class<?> type) {
        return type.getName().substring("org.apache.kafka.streams.".length());
    }

    /** The names of the types that lie in these packages of the jar that has Kafka Streams. */
    static SortedSet<String> typesOf(List<String> packages) throws Exception {
        Class<?> known = Class.forName("org.apache.kafka.streams.KafkaStreams");
        SortedSet<String> names = new TreeSet<>();
        try (ZipFile jar = new ZipFile(new File(known.getProtectionDomain().getCodeSource().getLocation().toURI()))) {
            jar.stream().map(entry -> entry.getName().replace('/', '.')).filter(name -> name.endsWith(".class")).forEach(name -> {
                String type = name.substring(0, name.length() - ".class".length());
                String folder = type.substring(0, type.lastIndexOf('.'));
                if (packages.stream().anyMatch(asked -> folder.equals("org.apache.kafka.streams" + (asked.equals(".") ? "" : "." + asked)))) names.add(type);
            });
        }
        return names;
    }
}
