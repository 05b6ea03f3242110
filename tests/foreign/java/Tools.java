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
import org.apache.kafka.common.utils.Exit;

public class Tools {
    /** Takes the place of the JVM's end when a tool asks for it. */
    static final class Ended extends RuntimeException {
        final int code;

        Ended(int code) {
            super(null, null, false, false);
            this.code = code;
        }
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setErr(out);
        Exit.Procedure end = (code, message) -> {
            throw new Ended(code);
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split("\t", -1);
            int code = 0;
            try {
                Class.forName(words[0]).getMethod("main", String[].class)
                    .invoke(null, (Object) Arrays.copyOfRange(words, 1, words.length));
            } catch (ReflectiveOperationException failure) {
                Throwable cause = failure.getCause();
                code = cause instanceof Ended ended ? ended.code : 99;
                if (!(cause instanceof Ended)) out.println(cause);
            }
            out.print("\u0001" + code + "\n");
            out.flush();
        }
    }
}
