<?php
// Decides which pages may listen to which feed. Taut asks at each `open`; see docs/routes.md, Server-Sent Events.
// Reach it over FastCGI: over HTTP, check the signature first, as examples/php/chat.php does.

$event = json_decode(file_get_contents('php://input'), true);
header('Content-Type: application/json');

if ($event['event'] !== 'open') {
    exit('{}');
}
$topic = $event['params']['topic'];
if (!in_array($topic, ['news', 'weather'], true)) {
    http_response_code(404);
    exit('{"error":"There is no such feed."}');
}
echo json_encode([
    'subscribe' => ["cache-$topic"], // a newcomer gets the last item at once
    'send' => ['json' => ['event' => 'welcome', 'data' => $topic]],
]);
