// Runs Apache Kafka's command-line tools one after the other in one JVM, because starting a JVM for each costs
// more than the tools do.
//
// Reads lines of tab-separated words from stdin, the tool's class first, and prints for each what the tool printed
// to both streams, then `\u0001` and its exit code.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.common.utils.Exit;

public class Tools {
    private static volatile CompletableFuture<Integer> ended;

    /** Takes the place of the JVM's end when a tool asks for it: the tool's thread does nothing more. */
    private static void end(int code) {
        ended.complete(code);
        while (true) LockSupport.park();
    }

    private static void run(String[] words) {
        int code = 0;
        try {
            String[] options = Arrays.copyOfRange(words, 1, words.length);
            Class.forName(words[0]).getMethod("main", String[].class).invoke(null, (Object) options);
        } catch (ReflectiveOperationException failure) {
            System.out.println(failure.getCause() == null ? failure : failure.getCause());
            code = 99;
        }
        ended.complete(code);
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setErr(out);
        Exit.setExitProcedure((code, message) -> end(code));
        Exit.setHaltProcedure((code, message) -> end(code));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split("\t", -1);
            ended = new CompletableFuture<>();
            Thread tool = new Thread(() -> run(words), "tool");
            tool.setDaemon(true);
            tool.start();
            int code = ended.join();
            out.print("\u0001" + code + "\n");
            out.flush();
        }
        System.exit(0);
    }
}
