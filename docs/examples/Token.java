// An access token for the resource that is given, with the JDK (17 or later) alone.
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.URLEncoder;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.util.regex.Pattern;

import static java.nio.charset.StandardCharsets.UTF_8;

class Token {
    static String token(String resource) throws IOException {
        var path = System.getenv().getOrDefault("ARCBROKER_SOCKET", "/run/arcbroker/token.sock");
        try (var broker = SocketChannel.open(StandardProtocolFamily.UNIX)) {
            broker.connect(UnixDomainSocketAddress.of(path));
            broker.write(ByteBuffer.wrap(("GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource="
                    + URLEncoder.encode(resource, UTF_8) + " HTTP/1.1\r\n"
                    + "Host: localhost\r\nMetadata: true\r\nConnection: close\r\n\r\n").getBytes(UTF_8)));
            var answer = new String(Channels.newInputStream(broker).readAllBytes(), UTF_8);
            if (!answer.startsWith("HTTP/1.1 200 ")) throw new IOException(member(answer, "error_description"));
            return member(answer, "access_token");
        }
    }

    /** Enough for the broker's flat documents; a program with a JSON library uses that. */
    static String member(String json, String name) throws IOException {
        var found = Pattern.compile("\"" + name + "\":\"((?:[^\"\\\\]++|\\\\.)*+)\"").matcher(json);
        if (!found.find()) throw new IOException("the answer has no " + name);
        return found.group(1);
    }

    public static void main(String[] arguments) {
        try { System.out.println(token(arguments[0])); }
        catch (IOException error) { System.err.println(error.getMessage()); System.exit(1); }
    }
}
