// Java's HttpClient with its defaults: GET URL, with the bearer token in the variable KEY if one is named.
// Arguments: URL [KEY].
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Get {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(arguments[0]));
        if (arguments.length > 1) {
            request.header("Authorization", "Bearer " + System.getenv(arguments[1]));
        }
        var answer = HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofString());
        System.out.print(answer.body());
        if (answer.statusCode() >= 400) {
            System.err.println(answer.statusCode() + " " + answer.headers().firstValue("x-deny-reason").orElse(""));
            System.exit(1);
        }
    }
}
