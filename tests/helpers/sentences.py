"""Fixed English sentences, written for these tests."""

SCORED = """
The train to the coast leaves every morning at seven.
She planted tomatoes behind the old stone house.
The court ruled that the contract was not valid.
Water boils at a lower temperature in the mountains.
He repaired the bicycle with parts from the scrapyard.
The museum is closed on Mondays and public holidays.
Two goals in the last minute decided the match.
The new vaccine was tested on ten thousand volunteers.
Please send me the invoice before the end of the month.
A cold wind blew across the empty square.
The orchestra rehearsed the symphony until midnight.
Our server was down for three hours last night.
The recipe calls for two eggs and a pinch of salt.
Satellites measure the height of the sea from space.
Children learn languages faster than most adults.
The bank raised its interest rates again.
""".strip().splitlines()

TESTED = """
The cat sleeps on the warm windowsill all afternoon.
Stock prices fell sharply after the announcement.
How do I reset the password of my account?
The bridge was built by Roman engineers.
A balanced diet includes fruit and vegetables.
The film was too long, but the actors were brilliant.
Electric cars need fewer moving parts than petrol cars.
Heavy rain flooded the streets of the old town.
The professor explained the theorem with a simple drawing.
My flight was cancelled because of the storm.
Bees are disappearing from many farms.
The team released a new version of the software.
He forgot his umbrella in the restaurant.
The treaty was signed by twelve countries.
An unknown painter left this portrait unfinished.
The patient was given a lower dose of the drug.
""".strip().splitlines()
