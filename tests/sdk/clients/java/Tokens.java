import com.azure.core.credential.AccessToken;
import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;

/** Asks the credential named as its argument for a token for each resource that it reads. */
public class Tokens {
    public static void main(String[] arguments) throws Exception {
        TokenCredential credential = newCredential(arguments[0]);
        BufferedReader resources = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String resource = resources.readLine(); resource != null; resource = resources.readLine()) {
            AccessToken token = credential.getTokenSync(new TokenRequestContext().addScopes(resource + "/.default"));
            System.out.println(digest(token.getToken()) + " " + token.getExpiresAt().toEpochSecond());
        }
        // Netty's threads would keep the process for a while.
        System.exit(0);
    }

    private static TokenCredential newCredential(String name) {
        if (name.equals("default")) {
            return new DefaultAzureCredentialBuilder().build();
        }
        return new ManagedIdentityCredentialBuilder().clientId(System.getenv("AZURE_CLIENT_ID")).build();
    }

    private static String digest(String token) throws Exception {
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(token.getBytes(StandardCharsets.UTF_8));
        return String.format("%064x", new BigInteger(1, hash)).substring(0, 12);
    }
}
