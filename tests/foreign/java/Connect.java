// Gets in by whatever properties say and writes a record, or says why not.
//
// Reads lines of tab-separated KEY=VALUE pairs from stdin, the topic under the key `topic`, and answers each with a
// line: `in`, or `out` with the causes of the failure. One JVM for all attempts, since starting it costs more.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class Connect {
    static final String ALLOWED = "org.apache.kafka.sasl.oauthbearer.allowed.";

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Properties settings = new Properties();
            for (String pair : line.split("\t")) {
                int at = pair.indexOf('=');
                settings.setProperty(pair.substring(0, at), pair.substring(at + 1));
            }
            System.out.println(attempt(settings).replaceAll("\\s+", " "));
            System.out.flush();
        }
    }

    static String attempt(Properties settings) {
        String topic = (String) settings.remove("topic");
        String token = settings.getProperty("sasl.oauthbearer.token.endpoint.url");
        if (token != null) {
            // The client reads tokens only from where it was told that it may.
            System.setProperty(ALLOWED + "urls", token);
            System.setProperty(ALLOWED + "files", token.substring("file:".length()));
        }
        settings.setProperty("max.block.ms", "20000");
        settings.setProperty("delivery.timeout.ms", "20000");
        settings.setProperty("request.timeout.ms", "10000");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(topic, "java")).get();
            return "in";
        } catch (Exception failure) {
            StringBuilder text = new StringBuilder("out");
            for (Throwable cause = failure; cause != null; cause = cause.getCause()) text.append(' ').append(cause);
            return text.toString();
        }
    }
}
